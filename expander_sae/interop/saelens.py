"""Folders of SAELens: a dense TopK autoencoder that loads without us, a compact one, and import.

The format is that of SAELens 6.54: cfg.json and sae_weights.safetensors.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.interop.dense import Weights, checked, from_dense, mask_record, to_dense
from expander_sae.interop.fidelity import Fidelity, measured_record
from expander_sae.interop.foreign_files import read_config, read_tensors, required
from expander_sae.masks.recipe import regenerate
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import write_json
from expander_sae.storage.safetensors_files import save_tensors
from expander_sae.study.presets import CORPORA, MODELS

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
COMPACT = "expander_topk"
"""Name under which `expander_sae.interop.saelens_plugin` registers the compact architecture."""
_COMPACT_ENCODERS = ("tied", "warm_tied", "independent")
FORMAT_VERSION = "6.54.12"
"""The SAELens version whose format this is. Without one of at least 6.0.0 its loader drops the metadata."""


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
    config: dict[str, Any] = {"architecture": COMPACT if compact else "topk"}
    config |= {"dtype": "float32", "device": "cpu"}
    config |= {"d_in": autoencoder.m, "d_sae": autoencoder.n, "k": autoencoder.k}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    if compact:
        record, limit = mask_record(autoencoder), autoencoder.about.get("norm_limit")
        return config | {"mask": record["mask"], "encoder": record["encoder"], "norm_limit": limit}
    # Columns have unit norm, so this changes nothing but makes `fold_W_dec_norm` possible. A column of
    # zeros would give 0/0.
    return config | {"rescale_acts_by_decoder_norm": bool((tensors["W_dec"].norm(dim=1) > 0).all())}


def dense_tensors(autoencoder: SparseAutoencoder) -> dict[str, Tensor]:
    """The state dict of SAELens's own TopK autoencoder."""
    dense = to_dense(autoencoder)
    encoder = dense.encoder.T.contiguous()
    return {"W_enc": encoder, "W_dec": dense.decoder, "b_enc": dense.b_enc, "b_dec": dense.b_dec}


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
        raise UserError("compact: found a dense autoencoder, expected one on a mask")
    if autoencoder.mask.learned:
        raise UserError("compact: found a learned mask, expected one that a recipe regenerates")
    tensors = {"values": decoder, "b_enc": autoencoder.b_enc, "b_dec": autoencoder.b_dec}
    if autoencoder.encoder is not None:
        free = getattr(autoencoder._encoder_on(dictionary), "values", None)
        if autoencoder.encoder_kind not in _COMPACT_ENCODERS or free is None:
            kind = autoencoder.encoder_kind
            raise UserError(f"compact: found encoder {kind!r}, expected one on the decoder's own support")
        tensors["encoder_values"] = free
    return {name: tensor.detach().float() for name, tensor in tensors.items()}


def load(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Import a TopK autoencoder from a SAELens folder.

    One that `export` wrote comes back onto its mask; any other is dense. SAELens applies ReLU after
    top-k, we do not: `expander_sae.interop.fidelity.fidelity` tells how often that matters.

    Raises:
        UserError: another architecture, a normalisation that is not folded in, or decoder norms that
            cannot be folded.
    """
    folder = Path(folder)
    path = folder / CONFIG
    config = read_config(path)
    # Before SAELens 6 a TopK autoencoder was a standard one with another activation function.
    activation = config.get("activation_fn_str", config.get("activation_fn"))
    architecture = "topk" if activation == "topk" else config.get("architecture")
    if architecture not in ("topk", COMPACT):
        raise UserError(f"{path}: architecture {architecture!r}, expected 'topk'")
    for key in ("normalize_activations", "reshape_activations"):
        if (config.get(key) or "none") != "none":
            raise UserError(f"{path}: {key} {config[key]!r}, expected 'none'")
    metadata = required(config, "metadata", dict, path) if config.get("metadata") else {}
    record = required(metadata, "expander_sae", dict, path) if "expander_sae" in metadata else None
    if architecture == COMPACT:
        return _load_compact(folder, config, record or {}, backend)
    old = config.get("activation_fn_kwargs")  # where k stood before SAELens 6
    k = required(old if "k" not in config and isinstance(old, dict) else config, "k", int, path)
    stored = read_tensors(folder / WEIGHTS, ("W_enc", "W_dec", "b_enc", "b_dec"))
    encoder = stored["W_enc"].transpose(0, -1).contiguous()
    weights = checked(Weights(encoder, stored["W_dec"], stored["b_enc"], stored["b_dec"], k), folder)
    if not config.get("apply_b_dec_to_input", True):
        # Eᵀh + b = Eᵀ(h − b_dec) + (b + Eᵀb_dec)
        weights = replace(weights, b_enc=weights.b_enc + weights.encoder @ weights.b_dec)
    about = {"imported": "saelens", "metadata": metadata}
    rescaled = bool(config.get("rescale_acts_by_decoder_norm", False))
    return from_dense(weights, folder, record, about, backend, selects_by_contribution=rescaled)


def _load_compact(
    folder: Path, config: dict[str, Any], record: dict[str, Any], backend: str
) -> SparseAutoencoder:
    path = folder / CONFIG
    m, n, k = (required(config, key, int, path) for key in ("d_in", "d_sae", "k"))
    described, kind = required(config, "mask", dict, path), required(config, "encoder", str, path)
    recipe, checksum = required(described, "recipe", dict, path), required(described, "sha256", str, path)
    if kind not in _COMPACT_ENCODERS:
        raise UserError(f"{path}: encoder {kind!r}, expected one of {', '.join(_COMPACT_ENCODERS)}")
    names = ("values", "b_enc", "b_dec") + (() if kind == "tied" else ("encoder_values",))
    stored = read_tensors(folder / WEIGHTS, names)
    if (m, n) != (stored["b_dec"].numel(), stored["b_enc"].numel()):
        raise UserError(f"{path}: d_in {m}, d_sae {n}, expected those of the biases in {WEIGHTS}")
    mask = regenerate(recipe, checksum, path, (m, n, stored["values"].numel()))
    try:
        loaded = SparseAutoencoder(m, n, k, mask, kind, backend)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for name in names:
        parameter = getattr(loaded, {"encoder_values": "encoder"}.get(name, name))
        if stored[name].shape != parameter.shape:
            found, expected = list(stored[name].shape), list(parameter.shape)
            raise UserError(f"{folder / WEIGHTS}: {name} of shape {found}, expected {expected}")
        with torch.no_grad():
            parameter.copy_(stored[name])
    about = required(record, "about", dict, path) if "about" in record else {}
    # SAELens may have folded a scale in since it was written: the limit in use is the configuration's.
    limit = config.get("norm_limit")
    if isinstance(limit, bool) or not isinstance(limit, int | float | None):
        raise UserError(f"{path}: norm_limit {limit!r}, expected a number or null")
    loaded.about = about if limit is None else about | {"norm_limit": limit}
    return loaded
