"""Reads what SAELens wrote: topk, standard, jumprelu, gated, batchtopk, matryoshka, and our compact ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.interop import formulas
from expander_sae.interop.dense import Weights, checked, from_dense
from expander_sae.interop.foreign_files import flag, read_config, read_tensors, required, same_size
from expander_sae.interop.foreign_keys import SAELENS, SAELENS_COMPACT, SAELENS_PLACE, Keys
from expander_sae.interop.saelens_format import (
    COMPACT,
    COMPACT_ENCODERS,
    COMPACT_JUMPRELU,
    CONFIG,
    FACTORS,
    WEIGHTS,
)
from expander_sae.masks.recipe import regenerate
from expander_sae.model.autoencoder import SparseAutoencoder

_MATRICES = ("W_enc", "W_dec")
_TENSORS = {
    "topk": (*_MATRICES, "b_enc", "b_dec"),
    "standard": (*_MATRICES, "b_enc", "b_dec"),
    "jumprelu": (*_MATRICES, "b_enc", "b_dec", "threshold"),
    "gated": (*_MATRICES, "b_gate", "b_mag", "r_mag", "b_dec"),
    # As the trainer's checkpoints are; what it saves at the end is a jumprelu.
    "batchtopk": (*_MATRICES, "b_enc", "b_dec", "topk_threshold"),
    "matryoshka_batchtopk": (*_MATRICES, "b_enc", "b_dec", "topk_threshold"),
}
"""Architecture → its tensors."""


def load(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Import an autoencoder from a SAELens folder; it computes what it does there.

    One that `saelens.export` wrote comes back onto its mask and without SAELens's ReLU after top-k, which
    ours lacks: `expander_sae.interop.fidelity.fidelity` tells how often that matters. Any other is dense.
    Weights are rounded to the `dtype` of cfg.json, as its loader does, and computed with in float32. A
    checkpoint of BatchTopK or of Matryoshka is read with the threshold that SAELens would save.

    Raises:
        UserError: another architecture, a normalisation that is not folded in, a transcoder, or a key or
            tensor that is not known.
    """
    folder = Path(folder)
    path = folder / CONFIG
    config = read_config(path)
    metadata = required(config, "metadata", dict, path) if config.get("metadata") else {}
    record = required(metadata, "expander_sae", dict, path) if "expander_sae" in metadata else None
    config, k = _as_of_6(config, metadata, path)
    compact = config["architecture"] in (COMPACT, COMPACT_JUMPRELU)
    (SAELENS_COMPACT if compact else SAELENS).check(config, path)
    place = {key: value for key, value in config.items() if key in SAELENS_PLACE} | metadata
    out = place.get("hook_name_out")
    if out not in (None, place.get("hook_name")):
        raise UserError(f"{path}: hook_name_out {out!r}, expected hook_name {place.get('hook_name')!r}")
    if compact:
        return _load_compact(folder, config, record or {}, backend)
    return _load_dense(folder, config, k, (place, record), backend)


def _as_of_6(config: dict[str, Any], metadata: dict[str, Any], path: Path) -> tuple[dict[str, Any], Any]:
    """(configuration, k) as SAELens 6 reads them, of an architecture that is known here."""
    architecture, k = config.get("architecture"), config.get("k")
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    if version.partition(".")[0] in ("0", "1", "2", "3", "4", "5"):
        # There a TopK autoencoder was a standard one with another activation function.
        activation = config.get("activation_fn_str", config.get("activation_fn"))
        if activation not in (None, "relu", "topk"):
            raise UserError(f"{path}: activation_fn {activation!r}, expected 'relu' or 'topk'")
        if activation == "topk" and architecture not in (None, "standard", "topk"):
            raise UserError(f"{path}: architecture {architecture!r}, expected 'topk', as activation_fn is")
        if architecture in (None, "standard"):
            architecture = "topk" if activation == "topk" else "standard"
        if activation == "topk" and config.get("activation_fn_kwargs"):
            options = required(config, "activation_fn_kwargs", dict, path)
            Keys(frozenset({"k"})).check(options, path)
            k = options.get("k")
        at = str(config.get("hook_name") or config.get("hook_point") or "")
        if "hook_z" in at:
            config = {"reshape_activations": "hook_z"} | config
    known = (*_TENSORS, COMPACT, COMPACT_JUMPRELU)
    if architecture not in known:
        raise UserError(f"{path}: architecture {architecture!r}, expected one of {', '.join(known)}")
    return config | {"architecture": architecture}, k


def _load_dense(
    folder: Path,
    config: dict[str, Any],
    k: Any,
    about: tuple[dict[str, Any], dict[str, Any] | None],
    backend: str,
) -> SparseAutoencoder:
    path, (place, record) = folder / CONFIG, about
    architecture = config["architecture"]
    selects = "topk" in architecture
    rescaled = selects and flag(config, "rescale_acts_by_decoder_norm", architecture != "topk", path)
    factors = (FACTORS,) if flag(config, FACTORS, False, path) else ()
    if rescaled and factors:
        raise UserError(
            f"{path}: {FACTORS} True beside rescale_acts_by_decoder_norm True, expected one of them"
        )
    stored = read_tensors(folder / WEIGHTS, (*_TENSORS[architecture], *factors), _dtype(config, path))
    for name in ("b_gate", "b_mag", "r_mag") if architecture == "gated" else ():  # others `checked` tells
        if stored[name].shape != stored["W_dec"].shape[:1]:
            found, expected = list(stored[name].shape), list(stored["W_dec"].shape[:1])
            raise UserError(f"{folder / WEIGHTS}: {name} of shape {found}, expected {expected}, as of W_dec")
    k = required({"k": k}, "k", int, path) if architecture == "topk" else None
    weights = checked(_weights(stored, k, folder), folder)
    same_size(config, {"d_in": weights.b_dec.numel(), "d_sae": weights.b_enc.numel()}, path)
    if not flag(config, "apply_b_dec_to_input", True, path):
        weights = formulas.uncentred(weights)
    known = {"imported": "saelens", "metadata": place}
    return from_dense(weights, folder, record, known, backend, selects_by_contribution=rescaled)


def _weights(stored: dict[str, Tensor], k: int | None, folder: Path) -> Weights:
    """By the formula that the tensors tell; k of TopK, None of others."""
    matrices, b_dec = (stored["W_enc"].transpose(0, -1).contiguous(), stored["W_dec"]), stored["b_dec"]
    if "r_mag" in stored:
        weights = formulas.gated(matrices, stored["b_gate"], stored["b_mag"], stored["r_mag"], b_dec)
    elif k is not None:
        weights = formulas.topk(matrices, stored["b_enc"], b_dec, k)
    else:
        threshold = stored.get("threshold")
        if "topk_threshold" in stored:
            if stored["topk_threshold"].numel() != 1:
                found = list(stored["topk_threshold"].shape)
                raise UserError(f"{folder / WEIGHTS}: topk_threshold of shape {found}, expected one number")
            threshold = stored["topk_threshold"].flatten().expand(len(stored["b_enc"]))
        weights = formulas.jumprelu(matrices, stored["b_enc"], b_dec, threshold)
    return weights if FACTORS not in stored else replace(weights, gains=stored[FACTORS])


def _dtype(config: dict[str, Any], path: Path) -> torch.dtype:
    name = str(config.get("dtype") or "float32").removeprefix("torch.")
    if name not in ("float64", "float32", "bfloat16", "float16"):
        expected = "float64, float32, bfloat16 or float16"
        raise UserError(f"{path}: dtype {config['dtype']!r}, expected {expected}")
    found: torch.dtype = getattr(torch, name)
    return found


def _load_compact(
    folder: Path, config: dict[str, Any], record: dict[str, Any], backend: str
) -> SparseAutoencoder:
    path = folder / CONFIG
    varying = config["architecture"] == COMPACT_JUMPRELU
    m, n = (required(config, key, int, path) for key in ("d_in", "d_sae"))
    k = n if varying else required(config, "k", int, path)
    described, kind = required(config, "mask", dict, path), required(config, "encoder", str, path)
    recipe, checksum = required(described, "recipe", dict, path), required(described, "sha256", str, path)
    if kind not in COMPACT_ENCODERS:
        raise UserError(f"{path}: encoder {kind!r}, expected one of {', '.join(COMPACT_ENCODERS)}")
    names = ("values", "b_enc", "b_dec") + (() if kind == "tied" else ("encoder_values",))
    threshold = ("threshold",) if varying else ()
    stored = read_tensors(folder / WEIGHTS, (*names, *threshold), _dtype(config, path))
    if (m, n) != (stored["b_dec"].numel(), stored["b_enc"].numel()):
        raise UserError(f"{path}: d_in {m}, d_sae {n}, expected those of the biases in {WEIGHTS}")
    mask = regenerate(recipe, checksum, path, (m, n, stored["values"].numel()))
    try:
        loaded = SparseAutoencoder(m, n, k, mask, kind, backend)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if varying:
        loaded.thresholds = torch.zeros(n)
    _fill(loaded, stored, folder / WEIGHTS)
    if not flag(config, "apply_b_dec_to_input", True, path):
        with torch.no_grad():  # as in `_load_dense`
            encoder = loaded._encoder_on(loaded.dictionary())
            loaded.b_enc.add_(encoder.correlate(loaded.b_dec[None])[0])
    about = required(record, "about", dict, path) if "about" in record else {}
    # SAELens may have folded a scale in since it was written: the limit in use is the configuration's.
    limit = config.get("norm_limit")
    if isinstance(limit, bool) or not isinstance(limit, int | float | None):
        raise UserError(f"{path}: norm_limit {limit!r}, expected a number or null")
    loaded.about = about if limit is None else about | {"norm_limit": limit}
    return loaded


@torch.no_grad()
def _fill(empty: SparseAutoencoder, stored: dict[str, Tensor], path: Path) -> None:
    """Take over the tensors of a compact folder."""
    ours = {"encoder_values": "encoder", "threshold": "thresholds"}
    for name, tensor in stored.items():
        parameter = getattr(empty, ours.get(name, name))
        if tensor.shape != parameter.shape:
            found, expected = list(tensor.shape), list(parameter.shape)
            raise UserError(f"{path}: {name} of shape {found}, expected {expected}")
        parameter.copy_(tensor.clamp(min=0) if name == "threshold" else tensor)
