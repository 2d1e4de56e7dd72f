"""Folders of SAELens: a dense autoencoder that loads without us, a compact one, and import.

The format is that of SAELens 6.54: cfg.json and sae_weights.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.interop.dense import check_selection, mask_record, to_dense
from expander_sae.interop.fidelity import Fidelity, measured_record
from expander_sae.interop.saelens_format import (
    COMPACT,
    COMPACT_ENCODERS,
    COMPACT_JUMPRELU,
    CONFIG,
    FORMAT_VERSION,
    WEIGHTS,
)
from expander_sae.interop.saelens_reading import load
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import write_json
from expander_sae.storage.safetensors_files import save_tensors
from expander_sae.study.presets import CORPORA, MODELS

__all__ = ["CONFIG", "WEIGHTS", "export", "load"]


def export(
    autoencoder: SparseAutoencoder,
    folder: str | Path,
    activations: Tensor | np.ndarray | None = None,
    compact: bool = False,
    say: bool = True,
    *,
    context_size: int | None = None,
    prepend_bos: bool | None = None,
    **metadata: Any,
) -> Fidelity | None:
    """Write a SAELens folder; SAELens loads it with `SAE.load_from_disk(folder)`.

    What is not given is written where the run's record tells it: hook_name where the layer is known,
    model_name and context_size for a built-in model that came from the Hub and a built-in corpus. What is
    not known is left out.

    Args:
        autoencoder: what to write.
        folder: where to.
        activations: [N, m]; measure on them how often a kept value is not positive, which SAELens's ReLU
            would set to 0, and how often a token exceeds the norm limit. The result is returned, printed
            (if `say`) and written to cfg.json.
        compact: store values and biases only, the mask as a recipe; loading it needs
            `import expander_sae.interop.saelens_plugin` first, and negative values are kept. Otherwise a
            dense TopK autoencoder that needs nothing of ours.
        say: print what the export means for its user.
        context_size: tokens of a sequence. SAELens 6.54 loads a folder without it and `prepend_bos`; its
            `ActivationsStore.from_sae`, and so an evaluation, asks for both.
        prepend_bos: whether each sequence begins with a BOS token.
        metadata: SAELens's own, such as model_name and hook_name.

    Raises:
        UserError: activations of another width; with `compact`, what it cannot hold.
    """
    folder = Path(folder)
    tensors = compact_tensors(autoencoder) if compact else dense_tensors(autoencoder)
    config = _config(autoencoder, compact, tensors)
    measured, said = measured_record(autoencoder, folder, activations, say, relu=not compact)
    given = {"context_size": context_size, "prepend_bos": prepend_bos} | metadata
    known = _known(autoencoder) | {key: value for key, value in given.items() if value is not None}
    ours = mask_record(autoencoder) | {"fidelity": said}
    save_tensors(tensors, folder / WEIGHTS, {})
    write_json(folder / CONFIG, config | {"metadata": known | {"expander_sae": ours}})
    return measured


def _config(autoencoder: SparseAutoencoder, compact: bool, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Everything of cfg.json but its metadata."""
    vary = autoencoder.counts_vary
    kinds = (COMPACT, COMPACT_JUMPRELU) if compact else ("topk", "jumprelu")
    config: dict[str, Any] = {"architecture": kinds[vary], "dtype": "float32", "device": "cpu"}
    config |= {"d_in": autoencoder.m, "d_sae": autoencoder.n} | ({} if vary else {"k": autoencoder.k})
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    if compact:
        record, limit = mask_record(autoencoder), autoencoder.about.get("norm_limit")
        return config | {"mask": record["mask"], "encoder": record["encoder"], "norm_limit": limit}
    if vary:
        return config
    # Columns have unit norm, so this changes nothing but makes `fold_W_dec_norm` possible. A column of
    # zeros would give 0/0. Where columns have gains, selection does not see them.
    rescaled = autoencoder.gains is None and bool((tensors["W_dec"].norm(dim=1) > 0).all())
    return config | {"rescale_acts_by_decoder_norm": rescaled}


def dense_tensors(autoencoder: SparseAutoencoder) -> dict[str, Tensor]:
    """The state dict of SAELens's own TopK autoencoder, or of its JumpReLU where thresholds alone decide."""
    check_selection(autoencoder, "saelens", varying=True)
    dense = to_dense(autoencoder)
    encoder = dense.encoder.T.contiguous()
    tensors = {"W_enc": encoder, "W_dec": dense.gained, "b_enc": dense.b_enc, "b_dec": dense.b_dec}
    return tensors | _threshold(autoencoder)


def _threshold(autoencoder: SparseAutoencoder) -> dict[str, Tensor]:
    kept = autoencoder.thresholds
    return {"threshold": kept.float().cpu()} if kept is not None and autoencoder.counts_vary else {}


def _known(autoencoder: SparseAutoencoder) -> dict[str, Any]:
    """What SAELens's metadata can say of a run without being told."""
    # `load_model` of SAELens unpacks model_from_pretrained_kwargs, so that it must not be missing.
    known: dict[str, Any] = {"sae_lens_version": FORMAT_VERSION, "sae_lens_training_version": None}
    known["model_from_pretrained_kwargs"] = {}
    spec = autoencoder.about.get("spec", {})
    if "layer" in spec:
        known["hook_name"] = f"blocks.{spec['layer']}.hook_resid_post"
    # Another setting than the built-in one has another name, so that these are the settings of the run.
    # A model from a package may be a quantised one: the Hub's model of its name is not what was used.
    model, corpus = MODELS.get(str(spec.get("model"))), CORPORA.get(str(spec.get("corpus")))
    if model is not None and model["source"] == "hub":
        known["model_name"] = model["location"]
    if corpus is not None:
        known["context_size"] = corpus["context"]
    return known


def compact_tensors(autoencoder: SparseAutoencoder) -> dict[str, Tensor]:
    """Unit-norm decoder values [n, w], encoder values if any, and biases: the compact state dict."""
    dictionary = autoencoder.dictionary()
    decoder = getattr(dictionary, "values", None)
    if autoencoder.mask is None or decoder is None:
        raise UserError(f"compact: found {autoencoder.decoder.words}, expected columns on a mask")
    if autoencoder.gains is not None:
        raise UserError("compact: found gains of another library's decoder norms, expected none")
    if autoencoder.thresholds is not None and not autoencoder.counts_vary:
        raise UserError("compact: found a ReLU after top-k, expected none")
    if autoencoder.mask.learned:
        raise UserError("compact: found a learned mask, expected one that a recipe regenerates")
    tensors = {"values": decoder, "b_enc": autoencoder.b_enc, "b_dec": autoencoder.b_dec}
    if autoencoder.encoder is not None:
        free = getattr(autoencoder._encoder_on(dictionary), "values", None)
        if autoencoder.encoder_kind not in COMPACT_ENCODERS or free is None:
            kind = autoencoder.encoder_kind
            raise UserError(f"compact: found encoder {kind!r}, expected one on the decoder's own support")
        tensors["encoder_values"] = free
    return {name: tensor.detach().float() for name, tensor in tensors.items()} | _threshold(autoencoder)
