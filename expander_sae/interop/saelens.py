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
from expander_sae.interop.foreign_files import flag, read_config, read_tensors, required, same_size
from expander_sae.interop.foreign_keys import SAELENS, SAELENS_COMPACT, SAELENS_PLACE, Keys
from expander_sae.masks.recipe import regenerate
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import write_json
from expander_sae.storage.safetensors_files import save_tensors
from expander_sae.study.presets import CORPORA, MODELS

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
COMPACT = "expander_topk"
"""Name under which `expander_sae.interop.saelens_plugin` registers the compact architecture."""
FACTORS = "finetuning_scaling_factor"
"""Before SAELens 6, what each feature's activation was multiplied by before it was decoded."""
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
    # zeros would give 0/0. Where columns have gains, selection does not see them.
    rescaled = autoencoder.gains is None and bool((tensors["W_dec"].norm(dim=1) > 0).all())
    return config | {"rescale_acts_by_decoder_norm": rescaled}


def dense_tensors(autoencoder: SparseAutoencoder) -> dict[str, Tensor]:
    """The state dict of SAELens's own TopK autoencoder."""
    dense = to_dense(autoencoder)
    encoder = dense.encoder.T.contiguous()
    return {"W_enc": encoder, "W_dec": dense.gained, "b_enc": dense.b_enc, "b_dec": dense.b_dec}


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
    top-k, we do not: `expander_sae.interop.fidelity.fidelity` tells how often that matters. Weights are
    rounded to the `dtype` of cfg.json, as its loader does, and computed with in float32.

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
    compact = config["architecture"] == COMPACT
    (SAELENS_COMPACT if compact else SAELENS).check(config, path)
    place = {key: value for key, value in config.items() if key in SAELENS_PLACE} | metadata
    out = place.get("hook_name_out")
    if out not in (None, place.get("hook_name")):
        raise UserError(f"{path}: hook_name_out {out!r}, expected hook_name {place.get('hook_name')!r}")
    if compact:
        return _load_compact(folder, config, record or {}, backend)
    return _load_dense(folder, config, k, (place, record), backend)


def _as_of_6(config: dict[str, Any], metadata: dict[str, Any], path: Path) -> tuple[dict[str, Any], Any]:
    """(configuration, k) as SAELens 6 reads them, which is of TopK or of ours."""
    architecture, k = config.get("architecture"), config.get("k")
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    if version.partition(".")[0] in ("0", "1", "2", "3", "4", "5"):
        # There a TopK autoencoder was a standard one with another activation function.
        activation = config.get("activation_fn_str", config.get("activation_fn"))
        if activation == "topk" and architecture in (None, "standard"):
            architecture = "topk"
        if activation == "topk" and config.get("activation_fn_kwargs"):
            options = required(config, "activation_fn_kwargs", dict, path)
            Keys(frozenset({"k"})).check(options, path)
            k = options.get("k")
        at = str(config.get("hook_name") or config.get("hook_point") or "")
        if "hook_z" in at:
            config = {"reshape_activations": "hook_z"} | config
    if architecture not in ("topk", COMPACT):
        raise UserError(f"{path}: architecture {architecture!r}, expected 'topk'")
    return config | {"architecture": architecture}, k


def _load_dense(
    folder: Path,
    config: dict[str, Any],
    k: Any,
    about: tuple[dict[str, Any], dict[str, Any] | None],
    backend: str,
) -> SparseAutoencoder:
    path, (place, record) = folder / CONFIG, about
    k = required({"k": k}, "k", int, path)
    rescaled = flag(config, "rescale_acts_by_decoder_norm", False, path)
    factors = (FACTORS,) if flag(config, FACTORS, False, path) else ()
    if rescaled and factors:
        raise UserError(
            f"{path}: {FACTORS} True beside rescale_acts_by_decoder_norm True, expected one of them"
        )
    names = ("W_enc", "W_dec", "b_enc", "b_dec", *factors)
    stored = read_tensors(folder / WEIGHTS, names, _dtype(config, path))
    encoder = stored["W_enc"].transpose(0, -1).contiguous()
    biases = stored["b_enc"], stored["b_dec"]
    weights = checked(Weights(encoder, stored["W_dec"], *biases, k, stored.get(FACTORS)), folder)
    same_size(config, {"d_in": weights.b_dec.numel(), "d_sae": weights.b_enc.numel()}, path)
    if not flag(config, "apply_b_dec_to_input", True, path):
        # Eᵀh + b = Eᵀ(h − b_dec) + (b + Eᵀb_dec)
        weights = replace(weights, b_enc=weights.b_enc + weights.encoder @ weights.b_dec)
    known = {"imported": "saelens", "metadata": place}
    return from_dense(weights, folder, record, known, backend, selects_by_contribution=rescaled)


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
    m, n, k = (required(config, key, int, path) for key in ("d_in", "d_sae", "k"))
    described, kind = required(config, "mask", dict, path), required(config, "encoder", str, path)
    recipe, checksum = required(described, "recipe", dict, path), required(described, "sha256", str, path)
    if kind not in _COMPACT_ENCODERS:
        raise UserError(f"{path}: encoder {kind!r}, expected one of {', '.join(_COMPACT_ENCODERS)}")
    names = ("values", "b_enc", "b_dec") + (() if kind == "tied" else ("encoder_values",))
    stored = read_tensors(folder / WEIGHTS, names, _dtype(config, path))
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
