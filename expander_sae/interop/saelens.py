"""Folders of SAELens: a dense TopK autoencoder that loads without us, a compact one, and import.

The format is that of SAELens 6.54: cfg.json and sae_weights.safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import UserError
from expander_sae.files import read_json, write_json
from expander_sae.interop.dense import (
    Fidelity,
    Weights,
    announce,
    fidelity,
    from_dense,
    mask_record,
    read_tensors,
    to_dense,
    unit_decoder,
)
from expander_sae.mask_shapes import PRUNED
from expander_sae.tensors import save_tensors

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
COMPACT = "expander_topk"
"""Name under which `expander_sae.interop.saelens_plugin` registers the compact architecture."""
FORMAT_VERSION = "6.54.12"
"""The SAELens version whose format this is. Without one of at least 6.0.0 its loader drops the metadata."""


def export(
    autoencoder: SparseAutoencoder,
    folder: str | Path,
    activations: Tensor | np.ndarray | None = None,
    compact: bool = False,
    say: bool = True,
    **metadata: Any,
) -> Fidelity | None:
    """Write a SAELens folder; SAELens loads it with `SAE.load_from_disk(folder)`.

    compact: store values and biases only, the mask as a recipe; loading it needs
        `import expander_sae.interop.saelens_plugin` first, and negative values are kept. Otherwise a
        dense TopK autoencoder that needs nothing of ours.
    activations: [N, m]; measure on them how often a kept value is not positive, which SAELens's ReLU
        would set to 0, and how often a token exceeds the norm limit. The result is returned, printed
        (if `say`) and written to cfg.json.
    metadata: SAELens's own, such as model_name, hook_name, context_size, prepend_bos. hook_name is
        ``blocks.{layer}.hook_resid_post`` where the layer is known.
    """
    folder = Path(folder)
    measured = None if activations is None else fidelity(autoencoder, activations)
    config = {
        "architecture": COMPACT if compact else "topk",
        "d_in": autoencoder.m,
        "d_sae": autoencoder.n,
        "k": autoencoder.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    record = mask_record(autoencoder)
    if compact:
        config |= {"mask": record["mask"], "encoder": record["encoder"]}
        config["norm_limit"] = autoencoder.about.get("norm_limit")
        tensors = compact_tensors(autoencoder)
    else:
        dense = to_dense(autoencoder)
        # Columns have unit norm, so this changes nothing but makes `fold_W_dec_norm` possible. A
        # column of zeros would give 0/0.
        config["rescale_acts_by_decoder_norm"] = bool((dense.decoder.norm(dim=1) > 0).all())
        tensors = {
            "W_enc": dense.encoder.T.contiguous(),
            "W_dec": dense.decoder,
            "b_enc": dense.b_enc,
            "b_dec": dense.b_dec,
        }
    spec = autoencoder.about.get("spec", {})
    known: dict[str, Any] = {"sae_lens_version": FORMAT_VERSION, "sae_lens_training_version": None}
    known |= {"model_from_pretrained_kwargs": {}, "prepend_bos": False, "context_size": 128}
    if "layer" in spec:
        known |= {"hook_name": f"blocks.{spec['layer']}.hook_resid_post", "model_name": spec["model"]}
    said = announce(folder, measured, say)
    save_tensors(tensors, folder / WEIGHTS, {})
    write_json(
        folder / CONFIG,
        config | {"metadata": known | metadata | {"expander_sae": record | {"fidelity": said}}},
    )
    return measured


def compact_tensors(autoencoder: SparseAutoencoder) -> dict[str, Tensor]:
    """Unit-norm decoder values [n, w], encoder values if any, and biases: the compact state dict."""
    dictionary = autoencoder.dictionary()
    decoder = getattr(dictionary, "values", None)
    if autoencoder.mask is None or decoder is None:
        raise UserError("compact: found a dense autoencoder, expected one on a mask")
    if autoencoder.mask.recipe.family == PRUNED:
        raise UserError("compact: found a learned mask, expected one that a recipe regenerates")
    tensors = {"values": decoder, "b_enc": autoencoder.b_enc, "b_dec": autoencoder.b_dec}
    if autoencoder.encoder is not None:
        free = getattr(autoencoder._encoder_on(dictionary), "values", None)
        if autoencoder.encoder_kind not in ("warm_tied", "independent") or free is None:
            kind = autoencoder.encoder_kind
            raise UserError(f"compact: found encoder {kind!r}, expected one on the decoder's own support")
        tensors["encoder_values"] = free
    return {name: tensor.detach().float() for name, tensor in tensors.items()}


def load(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Import a TopK autoencoder from a SAELens folder.

    One that `export` wrote comes back onto its mask; any other is dense. SAELens applies ReLU after
    top-k, we do not: `expander_sae.interop.fidelity` tells how often that matters.

    Raises:
        UserError: another architecture, a normalisation that is not folded in, or decoder norms that
            cannot be folded.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    architecture = _architecture(config)
    if architecture not in ("topk", COMPACT):
        raise UserError(f"{folder / CONFIG}: architecture {architecture!r}, expected 'topk'")
    normalisation = config.get("normalize_activations") or "none"
    if normalisation not in ("none", False):
        raise UserError(f"{folder / CONFIG}: normalize_activations {normalisation!r}, expected 'none'")
    if (config.get("reshape_activations") or "none") != "none":
        raise UserError(
            f"{folder / CONFIG}: reshape_activations {config['reshape_activations']!r}, expected 'none'"
        )
    record = (config.get("metadata") or {}).get("expander_sae")
    if architecture == COMPACT:
        return _load_compact(folder, config, record or {}, backend)
    stored = read_tensors(folder / WEIGHTS, ("W_enc", "W_dec", "b_enc", "b_dec"))
    b_enc = stored["b_enc"]
    if not config.get("apply_b_dec_to_input", True):
        # Eᵀh + b = Eᵀ(h − b_dec) + (b + Eᵀb_dec)
        b_enc = b_enc + stored["b_dec"] @ stored["W_enc"]
    weights = Weights(
        stored["W_enc"].T.contiguous(), stored["W_dec"], b_enc, stored["b_dec"], _k(config, folder)
    )
    rescaled = bool(config.get("rescale_acts_by_decoder_norm", False))
    loaded = from_dense(unit_decoder(weights, rescaled, folder), folder, record, backend)
    if record is None:
        loaded.about = {"imported": "saelens", "metadata": config.get("metadata") or {}}
    return loaded


def _load_compact(
    folder: Path, config: dict[str, Any], record: dict[str, Any], backend: str
) -> SparseAutoencoder:
    from expander_sae.masks import regenerate

    mask = regenerate(config["mask"]["recipe"], config["mask"]["sha256"], folder / CONFIG)
    kind = config["encoder"]
    names = ("values", "b_enc", "b_dec") + (() if kind == "tied" else ("encoder_values",))
    stored = read_tensors(folder / WEIGHTS, names)
    loaded = SparseAutoencoder(config["d_in"], config["d_sae"], config["k"], mask, kind, backend)
    with torch.no_grad():
        loaded.values.copy_(stored["values"])
        loaded.b_enc.copy_(stored["b_enc"])
        loaded.b_dec.copy_(stored["b_dec"])
        if loaded.encoder is not None:
            loaded.encoder.copy_(stored["encoder_values"])
    loaded.about = dict(record.get("about", {}))
    return loaded


def _architecture(config: dict[str, Any]) -> str | None:
    """Before SAELens 6 a TopK autoencoder was a standard one with another activation function."""
    activation = config.get("activation_fn_str", config.get("activation_fn"))
    return "topk" if activation == "topk" else config.get("architecture")


def _k(config: dict[str, Any], folder: Path) -> int:
    k = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    if not isinstance(k, int):
        raise UserError(f"{folder / CONFIG}: k {k!r}, expected a whole number")
    return k
