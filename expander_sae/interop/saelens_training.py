"""Expander autoencoders trained by SAELens. Importing this module registers the architectures.

    from expander_sae.interop.saelens_training import ExpanderTrainingSAEConfig
    LanguageModelSAERunnerConfig(sae=ExpanderTrainingSAEConfig(d_in=576, d_sae=4608, k=64, d=30), …)

Parameters, gradients and optimiser state are O(d·n), and a step makes nothing of size [m, n] or [B, n] but
SAELens's own record of what fired. What is saved needs `expander_sae.interop.saelens_plugin` to load, or with
`saves_dense` nothing of ours. Losses are those of SAELens's TopK and BatchTopK.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from sae_lens import JumpReLUSAEConfig, SAEConfig, TopKSAEConfig, TrainingSAE, TrainingSAEConfig
from sae_lens.registry import register_sae_training_class
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import SparseHookPoint
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.interop.batch_topk import batch_topk
from expander_sae.interop.saelens_columns import OnMask, check_foldable
from expander_sae.interop.saelens_format import COMPACT, COMPACT_ENCODERS
from expander_sae.interop.saelens_plugin import ExpanderJumpReLUConfig, ExpanderSAEConfig
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.recipe import Mask, MaskRecipe, describe
from expander_sae.masks.supports import family
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import Dictionary, SparseCode, SparseDictionary
from expander_sae.rng import torch_generator


@lru_cache(maxsize=8)
def _generated(recipe: MaskRecipe) -> Mask:
    return recipe.generate()


@dataclass(kw_only=True)
class ExpanderTrainingSAEConfig(TrainingSAEConfig):
    """A TopK autoencoder on a mask.

    Args:
        k: active features per token; negative values are kept.
        d: nonzeros of each decoder column.
        support: a mask family, such as ``expander``.
        encoder: ``tied``; ``independent`` or ``warm_tied``, free on the decoder's support.
        seed: of the mask and of the first weights.
        aux_loss_coefficient: of SAELens's auxiliary loss, by which dead features learn.
        decoder_init_norm: what columns are scaled to before training, which sets how fast a step of Adam
            turns them; None is about 1, and what our own loop starts from.
        saves_dense: save as SAELens's own TopK or JumpReLU: O(m·n), and kept values of 0 or less are lost.
    """

    k: int = 100
    d: int = 32
    support: str = "expander"
    encoder: str = "tied"
    seed: int = 0
    aux_loss_coefficient: float = 1.0
    decoder_init_norm: float | None = None
    saves_dense: bool = False

    # Read by SAELens where a saved architecture has such a field.
    norm_limit = None
    rescale_acts_by_decoder_norm = True

    @classmethod
    def architecture(cls) -> str:
        return COMPACT

    def __post_init__(self) -> None:
        super().__post_init__()
        check_foldable(self)
        if self.encoder not in COMPACT_ENCODERS:
            raise UserError(f"encoder: found {self.encoder!r}, expected one of {', '.join(COMPACT_ENCODERS)}")
        if not 0 < self.k <= self.d_sae:
            raise UserError(f"k: found {self.k}, expected above 0 and at most d_sae = {self.d_sae}")
        if self.architecture() == COMPACT and int(self.k) != self.k:
            raise UserError(f"k: found {self.k}, expected a whole number of features a token")
        if not 1 <= self.d <= self.d_in:
            raise UserError(f"d: found {self.d}, expected 1 to d_in = {self.d_in}")
        family(self.support).check(self.d_in, self.d_sae, self.d)

    @property
    def mask(self) -> dict[str, Any]:
        """As a saved folder has it."""
        return describe(self.generated())

    def generated(self) -> Mask:
        """The mask of this configuration."""
        return _generated(MaskRecipe(self.support, self.d_in, self.d_sae, self.d, self.seed))

    def get_inference_config_class(self) -> type[SAEConfig]:
        """What the saved autoencoder is: ours, or SAELens's own."""
        return TopKSAEConfig if self.saves_dense else ExpanderSAEConfig

    def _metadata_with_training_info(self) -> dict[str, Any]:
        spec = {"support": self.support, "encoder": self.encoder, "m": self.d_in, "n": self.d_sae}
        about = {"spec": spec | {"d": self.d, "k": self.k, "seed": self.seed}}
        record = {"mask": self.mask, "encoder": self.encoder, "about": about}
        metadata: dict[str, Any] = super()._metadata_with_training_info()
        return metadata | {"expander_sae": record}


@dataclass(kw_only=True)
class ExpanderBatchTopKTrainingSAEConfig(ExpanderTrainingSAEConfig):
    """The ⌊k·B⌋ largest positive scores of a batch; saved with the threshold that is as strict on average.

    Args:
        topk_threshold_lr: how fast the threshold follows the least value that a batch keeps.
    """

    k: float = 100  # type: ignore[assignment]
    topk_threshold_lr: float = 0.01

    @classmethod
    def architecture(cls) -> str:
        return "expander_batchtopk"

    def get_inference_config_class(self) -> type[SAEConfig]:
        return JumpReLUSAEConfig if self.saves_dense else ExpanderJumpReLUConfig


class ExpanderTrainingSAE(OnMask, TrainingSAE[Any]):
    """TopK on a mask; see `ExpanderTrainingSAEConfig`."""

    def __init__(self, cfg: ExpanderTrainingSAEConfig, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        self.hook_sae_acts_post = SparseHookPoint(cfg.d_sae)
        self.setup()

    def mask(self) -> Mask:
        mask: Mask = self.cfg.generated()
        return mask

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """The start of our own loop with this seed, see `SparseAutoencoder.initialise`."""
        OnMask.initialize_weights(self)
        if self.values.is_meta:
            return
        cfg = self.cfg
        start = SparseAutoencoder(cfg.d_in, cfg.d_sae, 1, self.mask(), cfg.encoder)
        start.initialise(torch_generator(cfg.seed, "initialisation"))
        if cfg.decoder_init_norm is not None:
            start.values.copy_(cfg.decoder_init_norm * unit_columns(self.on_mask(start.values)))
        self.values.copy_(start.values)
        if self.encoder_values is not None and start.encoder is not None:
            self.encoder_values.copy_(start.encoder)

    def get_coefficients(self) -> dict[str, Any]:
        """The auxiliary loss has a constant one."""
        return {}

    def select(self, encoder: Dictionary, centred: Tensor) -> SparseCode:
        """Which scores of a batch are kept, and what they are."""
        return encoder.correlate_topk(centred, self.b_enc, self.cfg.k)

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(acts, scores), both […, d_sae], outside of a step."""
        scores = self.scores(x)
        value, index = scores.topk(self.cfg.k, dim=-1)
        return self.hook_sae_acts_post(torch.zeros_like(scores).scatter_(-1, index, value)), scores

    @torch.compiler.disable
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """The losses of a batch. Nothing is [m, n] or [B, n]; of hooks, that on the scores is not called."""
        # Kernels are in float32: autocast would round the product that selects on some backends.
        with torch.autocast(step_input.sae_in.device.type, enabled=False):
            centred = self.process_sae_in(step_input.sae_in).float()
            decoder = self.decoder()
            encoder = self.encoder(decoder)
            found = self.select(encoder, centred)
            kept = encoder.correlate_at(centred, found.index, self.b_enc, known=found.value)
            code = SparseCode(found.index, kept)
            rebuilt = self.hook_sae_recons(decoder.synthesize(code) + self.b_dec)
            rebuilt = self.run_time_activation_norm_fn_out(rebuilt)
            losses = {"mse_loss": self.mse_loss_fn(rebuilt, step_input.sae_in).sum(dim=-1).mean()}
            dead = step_input.dead_neuron_mask
            residual = (step_input.sae_in - rebuilt).detach()
            losses["auxiliary_reconstruction_loss"] = self._aux_loss(decoder, centred, residual, dead)
        acts = self.hook_sae_acts_post(self._as_sparse_tensor(code))
        # SAELens reads no scores of a step: what is active stands for them.
        loss = torch.stack(list(losses.values())).sum()
        return TrainStepOutput(step_input.sae_in, rebuilt, acts, acts, loss, losses)

    def _aux_loss(
        self, decoder: SparseDictionary, centred: Tensor, residual: Tensor, dead: Tensor | None
    ) -> Tensor:
        """How far the m/2 largest scores of dead features are from the residual [B, m]."""
        features = None if dead is None else dead.nonzero().flatten()
        if features is None or not len(features) or not self.cfg.aux_loss_coefficient:
            return residual.new_tensor(0.0)
        half = self.cfg.d_in // 2
        encoder = self.encoder(decoder)
        few = self.dictionary(encoder.values[features], features)
        found = few.correlate_topk(centred, self.b_enc[features], min(half, len(features)))
        index = features[found.index]
        kept = encoder.correlate_at(centred, index, self.b_enc, known=found.value)
        error = (decoder.synthesize(SparseCode(index, kept)) - residual).square().sum(dim=-1).mean()
        return self.cfg.aux_loss_coefficient * min(len(features) / half, 1.0) * error

    def calculate_aux_loss(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        """SAELens asks for it: `training_forward_pass` has what it needs already."""
        raise NotImplementedError("the auxiliary loss is a part of training_forward_pass")

    def _as_sparse_tensor(self, code: SparseCode) -> Tensor:
        """The code as a sparse tensor [B, n] without gradient, as SAELens counts what fired."""
        row, place = (code.index >= 0).nonzero(as_tuple=True)
        at = torch.stack([row, code.index[row, place]])
        return torch.sparse_coo_tensor(
            at, code.value.detach()[row, place], (len(code.index), self.cfg.d_sae), check_invariants=False
        )

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """Columns at unit norm; with `saves_dense` SAELens's own matrices."""
        if not self.cfg.saves_dense:
            state_dict["values"] = self.decoder().values.detach().to(self.dtype)
            return
        for name in ("values", "encoder_values"):
            state_dict.pop(name, None)
        state_dict |= {"W_enc": self.W_enc.contiguous(), "W_dec": self.W_dec}


class ExpanderBatchTopKTrainingSAE(ExpanderTrainingSAE):
    """BatchTopK on a mask; see `ExpanderBatchTopKTrainingSAEConfig`."""

    topk_threshold: Tensor

    def __init__(self, cfg: ExpanderBatchTopKTrainingSAEConfig, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        threshold = torch.tensor(0.0, dtype=torch.float64, device=self.b_dec.device)
        self.register_buffer("topk_threshold", threshold)

    def select(self, encoder: Dictionary, centred: Tensor) -> SparseCode:
        return batch_topk(encoder, centred, self.b_enc, self.cfg.k)

    def encode_with_hidden_pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(x)
        positive = scores.relu().flatten()
        chosen = positive.topk(int(self.cfg.k * scores.shape[:-1].numel()))
        acts = torch.zeros_like(positive).scatter_(0, chosen.indices, chosen.values)
        return self.hook_sae_acts_post(acts.view_as(scores)), scores

    @torch.compiler.disable
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """As of TopK; the threshold follows the least value that was kept."""
        output = super().training_forward_pass(step_input)
        kept = output.feature_acts
        positive = (kept if not kept.is_sparse else kept._values()).detach()
        positive = positive[positive > 0]
        if len(positive):
            rate = self.cfg.topk_threshold_lr
            self.topk_threshold.lerp_(positive.min().to(self.topk_threshold.dtype), rate)
        output.metrics["topk_threshold"] = self.topk_threshold
        return output

    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        super().fold_activation_norm_scaling_factor(scaling_factor)
        self.topk_threshold /= scaling_factor

    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        super().process_state_dict_for_saving_inference(state_dict)
        state_dict["threshold"] = torch.full_like(self.b_enc.data, float(state_dict.pop("topk_threshold")))


_TRAINED: tuple[tuple[type[ExpanderTrainingSAE], type[ExpanderTrainingSAEConfig]], ...] = (
    (ExpanderTrainingSAE, ExpanderTrainingSAEConfig),
    (ExpanderBatchTopKTrainingSAE, ExpanderBatchTopKTrainingSAEConfig),
)
for _kind, _config in _TRAINED:
    register_sae_training_class(_config.architecture(), _kind, _config)
