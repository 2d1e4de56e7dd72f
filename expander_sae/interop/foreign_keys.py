"""Every key that a configuration of another library may have, and what is done with it.

A key that stands nowhere here is refused: it may change what is computed. The names are those that the
libraries write, SAELens from 3.22 to 6.54, sparsify 1.3, dictionary_learning 0.1.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError


@dataclass(frozen=True)
class Keys:
    """What the keys of a configuration do.

    Args:
        applied: read by `load`, which makes of them what the library does.
        harmless: of training, of where activations come from, of the machine: the function of one
            activation vector does not depend on them.
        only: {key: values that change nothing}; any other value is refused. None is as good as absent.
    """

    applied: frozenset[str]
    harmless: frozenset[str] = frozenset()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def check(self, config: Mapping[str, Any], path: Path) -> None:
        """Raise `UserError` for the first key that is not known, or whose value cannot be represented."""
        for key, value in config.items():
            if key in self.applied or key in self.harmless:
                continue
            if key not in self.only:
                unknown = "it is not known here and may change what is computed; remove it if it does not"
                raise UserError(f"{path}: {key} {reprlib.repr(value)}, expected no such key: {unknown}")
            allowed = self.only[key]
            if value is not None and value not in allowed:
                listed = " or ".join(map(repr, allowed))
                raise UserError(f"{path}: {key} {reprlib.repr(value)}, expected {listed}")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SAELENS_PLACE = _names(
    "model_name hook_name hook_layer hook_head_index hook_point hook_point_layer hook_point_head_index"
    " hook_name_out hook_head_index_out hf_hook_name hf_hook_name_out model_class_name"
    " model_from_pretrained_kwargs prepend_bos context_size seqpos_slice exclude_special_tokens dataset_path"
    " neuronpedia_id sae_lens_version sae_lens_training_version"
)
"""Where the activations of a SAELens autoencoder come from. It is kept in `about` as metadata."""

_SAELENS_TRAINING = _names(
    "device dataset_trust_remote_code use_sparse_activations aux_loss_coefficient decoder_init_norm"
    " l1_coefficient lp_norm use_ghost_grads normalize_sae_decoder noise_scale decoder_orthogonal_init"
    " mse_loss_normalization jumprelu_init_threshold jumprelu_bandwidth decoder_heuristic_init"
    " decoder_heuristic_init_norm init_encoder_as_decoder_transpose scale_sparsity_penalty_by_decoder_norm"
    " l1_warm_up_steps l0_coefficient l0_warm_up_steps pre_act_loss_coefficient target_l0"
    " jumprelu_sparsity_loss_mode jumprelu_tanh_scale jumprelu_ste_to_input topk_threshold_lr"
    " matryoshka_widths use_matryoshka_aux_loss"
)
_SAELENS_APPLIED = _names("architecture d_in d_sae k dtype apply_b_dec_to_input metadata")
# A normalisation at run time is no linear map; an average one has a factor that the folder does not hold.
_SAELENS_ONLY = {"normalize_activations": ("none", False), "reshape_activations": ("none",)}

SAELENS = Keys(
    _SAELENS_APPLIED
    | _names(
        "activation_fn activation_fn_str activation_fn_kwargs rescale_acts_by_decoder_norm"
        " finetuning_scaling_factor"
    ),
    _SAELENS_TRAINING | SAELENS_PLACE,
    _SAELENS_ONLY,
)
SAELENS_COMPACT = Keys(
    _SAELENS_APPLIED | _names("mask encoder norm_limit"), frozenset({"device"}), _SAELENS_ONLY
)

SPARSIFY = Keys(
    _names("k d_in num_latents expander_sae"),
    # multi_topk is a second loss, normalize_decoder what training does after a step; num_latents or the
    # tensors say how many features there are.
    _names("multi_topk normalize_decoder expansion_factor"),
    # Older versions had `signed`: the k entries of largest magnitude, where we take the largest.
    {"activation": ("topk",), "signed": (False,), "skip_connection": (False,), "transcode": (False,)},
)

DICTIONARY_LEARNING = Keys(_names("trainer buffer expander_sae"))
DICTIONARY_LEARNING_CLASSES = {
    "TopKTrainer": "AutoEncoderTopK",
    "TrainerTopK": "AutoEncoderTopK",
    "BatchTopKTrainer": "BatchTopKSAE",
    "MatryoshkaBatchTopKTrainer": "MatryoshkaBatchTopKSAE",
    "StandardTrainer": "AutoEncoder",
    "StandardTrainerAprilUpdate": "AutoEncoder",
    "PAnnealTrainer": "AutoEncoder",
    "GatedSAETrainer": "GatedAutoEncoder",
    "GatedAnnealTrainer": "GatedAutoEncoder",
    "JumpReluTrainer": "JumpReluAutoEncoder",
}
"""Trainer → the class that it trains where it does not say which."""
DICTIONARY_LEARNING_TRAINER = Keys(
    _names("dict_class k activation_dim dict_size"),
    # Biases are scaled back by norm_factor before they are saved.
    _names(
        "lr steps seed auxk_alpha warmup_steps decay_start threshold_beta threshold_start_step k_anneal_steps"
        " norm_factor device layer lm_name wandb_name submodule_name top_k_aux l1_penalty resample_steps"
        " sparsity_warmup_steps sparsity_penalty sparsity_function p_start p_end anneal_start"
        " sparsity_queue_length n_sparsity_updates bandwidth target_l0 group_fractions group_weights"
        " group_sizes"
    ),
    {"trainer_class": tuple(DICTIONARY_LEARNING_CLASSES)},
)
DICTIONARY_LEARNING_BUFFER = Keys(
    frozenset(),
    _names(
        "d_submodule n_ctxs ctx_len refresh_batch_size out_batch_size device layer remove_bos"
        " add_special_tokens max_activation_norm_multiple"
    ),
    # Activations of a module's input or output; in_and_out makes a transcoder.
    {"io": ("in", "out")},
)
