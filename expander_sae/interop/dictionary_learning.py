"""Folders of dictionary_learning: ae.pt and config.json. We write its AutoEncoderTopK.

Their ae.pt is a pickle. We write one of plain tensors, and read with ``weights_only=True``, which runs
no code of the file.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError, readable
from expander_sae.interop import formulas
from expander_sae.interop.dense import Weights, check_selection, checked, from_dense, mask_record, to_dense
from expander_sae.interop.fidelity import Fidelity, measured_record
from expander_sae.interop.foreign_files import read_config, required, same_size, whole
from expander_sae.interop.foreign_keys import (
    DICTIONARY_LEARNING,
    DICTIONARY_LEARNING_BUFFER,
    DICTIONARY_LEARNING_CLASSES,
    DICTIONARY_LEARNING_TRAINER,
)
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.arrays import as_tensor
from expander_sae.storage.files import atomic_path, write_json
from expander_sae.storage.foreign_folders import DICTIONARY_LEARNING as DICTIONARY_LEARNING_FILES

CONFIG, WEIGHTS = DICTIONARY_LEARNING_FILES.config, DICTIONARY_LEARNING_FILES.weights
CLASS = "AutoEncoderTopK"
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_TENSORS: dict[str, tuple[str, ...]] = {
    CLASS: (*_LINEAR, "b_dec"),
    "BatchTopKSAE": (*_LINEAR, "b_dec", "threshold"),
    "MatryoshkaBatchTopKSAE": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "AutoEncoder": (*_LINEAR, "bias"),
    "AutoEncoderNew": (*_LINEAR, "decoder.bias"),
    "GatedAutoEncoder": (
        "encoder.weight",
        "gate_bias",
        "mag_bias",
        "r_mag",
        "decoder.weight",
        "decoder_bias",
    ),
    "JumpReluAutoEncoder": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
}
"""Class → its floating-point tensors; beside them some have whole numbers, see `_COUNTS`."""
_UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
"""They encode h, and not h − b_dec."""
_COUNTS = {CLASS: {"k"}, "BatchTopKSAE": {"k"}, "MatryoshkaBatchTopKSAE": {"k", "group_sizes"}}


def export(
    autoencoder: SparseAutoencoder,
    folder: str | Path,
    activations: Tensor | np.ndarray | None = None,
    say: bool = True,
) -> Fidelity | None:
    """Write a dense folder for `AutoEncoderTopK.from_pretrained(folder / "ae.pt")`; see `saelens.export`."""
    folder = Path(folder)
    check_selection(autoencoder, "dictionary_learning")
    dense = to_dense(autoencoder)
    measured, record = measured_record(autoencoder, folder, activations, say)
    tensors = {
        "encoder.weight": dense.encoder,
        "encoder.bias": dense.b_enc,
        "decoder.weight": dense.gained.T.contiguous(),
        "b_dec": dense.b_dec,
        "k": torch.tensor(autoencoder.k, dtype=torch.int),
        "threshold": torch.tensor(-1.0),
    }
    with atomic_path(folder / WEIGHTS) as temporary:
        torch.save(tensors, temporary)
    spec = autoencoder.about.get("spec", {})
    trainer: dict[str, Any] = {"trainer_class": "TopKTrainer", "dict_class": CLASS, "device": "cpu"}
    trainer |= {"activation_dim": autoencoder.m, "dict_size": autoencoder.n, "k": autoencoder.k}
    trainer |= {name: spec.get(name) for name in ("layer", "steps", "seed")} | {"lm_name": spec.get("model")}
    ours = mask_record(autoencoder) | {"fidelity": record}
    write_json(folder / CONFIG, {"trainer": trainer, "expander_sae": ours})
    return measured


def load(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Import an autoencoder; one that `export` wrote comes back onto its mask.

    A BatchTopKSAE has the tensors of an AutoEncoderTopK, but selects by its threshold: without config.json,
    which names the class, a file with a threshold is refused. k is that of ae.pt, or where it has none, of
    config.json.

    Raises:
        UserError: unreadable, of another class, a TopK without k, or a key or tensor that is not known.
    """
    folder = Path(folder)
    path, config_path = folder / WEIGHTS, folder / CONFIG
    config = read_config(config_path) if config_path.exists() else {}
    trainer = _trainer(config, config_path)
    damaged = (RuntimeError, ValueError, LookupError, pickle.UnpicklingError, EOFError)
    with readable(path, "a file of plain tensors", *damaged):
        stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors = dict(stored) if isinstance(stored, dict) else {}
    kind = trainer.get("dict_class") or _told_by(tensors, path)
    counts = {name: tensors.pop(name) for name in _COUNTS.get(kind, set()) & tensors.keys()}
    if kind == CLASS:
        tensors.pop("threshold", None)  # which it has, and does not use
    parts = whole(tensors, _TENSORS[kind], path)
    k = None
    if kind == CLASS:
        own = counts.get("k")
        k = required(trainer, "k", int, config_path) if own is None else _whole_number(own, path)
    weights = checked(_weights(kind, parts, k, path), folder)
    sizes = {"activation_dim": weights.b_dec.numel(), "dict_size": weights.b_enc.numel()}
    same_size(trainer, sizes, config_path)
    if "group_sizes" in counts and int(counts["group_sizes"].sum()) != sizes["dict_size"]:
        raise UserError(f"{path}: group_sizes of another sum than the {sizes['dict_size']} features")
    about = {"imported": "dictionary_learning"}
    return from_dense(weights, folder, config.get("expander_sae"), about, backend)


def _weights(kind: str, parts: dict[str, Tensor], k: int | None, path: Path) -> Weights:
    """By the formula of the class; k of TopK, None of others."""
    bias = next(name for name in ("b_dec", "bias", "decoder.bias", "decoder_bias") if name in parts)
    if "W_enc" in parts:
        encoder, b_enc, decoder = parts["W_enc"].transpose(0, -1).contiguous(), "b_enc", parts["W_dec"]
    else:
        decoder = parts["decoder.weight"].transpose(0, -1).contiguous()
        encoder, b_enc = parts["encoder.weight"], "encoder.bias"
    for name in parts.keys() - {"W_enc", "W_dec", "encoder.weight", "decoder.weight", bias, "threshold"}:
        if parts[name].shape != decoder.shape[:1]:
            found = f"{name} of shape {list(parts[name].shape)} beside a decoder of {list(decoder.shape)}"
            raise UserError(f"{path}: {found}")
    matrices, b_dec, threshold = (encoder, decoder), parts[bias], parts.get("threshold")
    if kind == "GatedAutoEncoder":
        return formulas.gated(matrices, parts["gate_bias"], parts["mag_bias"], parts["r_mag"], b_dec)
    if k is not None:
        return formulas.topk(matrices, parts[b_enc], b_dec, k)
    if threshold is not None and "BatchTopK" in kind:
        if threshold.numel() != 1:
            raise UserError(f"{path}: threshold of shape {list(threshold.shape)}, expected one number")
        threshold = threshold.flatten().expand(len(decoder))
    weights = checked(formulas.jumprelu(matrices, parts[b_enc], b_dec, threshold), path)
    return formulas.uncentred(weights) if kind in _UNCENTRED else weights


def _told_by(tensors: dict[Any, Any], path: Path) -> str:
    """The class whose tensors these are, where no configuration says it; `UserError`: two may be."""
    threshold = tensors.get("threshold")
    for kind, names in _TENSORS.items():
        if kind != CLASS and tensors.keys() == {*names, *_COUNTS.get(kind, ())}:
            if kind != "BatchTopKSAE":
                return kind
            _check_threshold(threshold, path)
    return CLASS


def _trainer(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """What config.json says of the autoencoder, every key of it checked."""
    DICTIONARY_LEARNING.check(config, path)
    if config.get("buffer") is not None:
        DICTIONARY_LEARNING_BUFFER.check(required(config, "buffer", dict, path), path)
    trainer = required(config, "trainer", dict, path) if "trainer" in config else {}
    known = ", ".join(_TENSORS)
    kind = trainer.get("dict_class") or DICTIONARY_LEARNING_CLASSES.get(str(trainer.get("trainer_class")))
    if kind not in (None, *_TENSORS):
        raise UserError(f"{path}: dict_class {kind!r}, expected one of {known}")
    DICTIONARY_LEARNING_TRAINER.check(trainer, path)
    return trainer | {"dict_class": kind}


def _check_threshold(threshold: Any, path: Path) -> None:
    """Refuse what may be a BatchTopKSAE; an AutoEncoderTopK has a threshold too, and does not use it."""
    if not isinstance(threshold, Tensor):
        return
    threshold = as_tensor(threshold, f"{path}: threshold")
    if bool((threshold >= 0).any()):
        raise UserError(
            f"{path}: a threshold of {float(threshold.max()):.4g} and no class, expected {CONFIG} with "
            f"trainer.dict_class {CLASS!r}; a BatchTopKSAE has the same tensors and selects by the threshold"
        )


def _whole_number(k: Any, path: Path) -> int:
    if not isinstance(k, Tensor) or k.numel() != 1:
        found = f"of shape {list(k.shape)}" if isinstance(k, Tensor) else repr(k)
        raise UserError(f"{path}: k {found}, expected one whole number")
    number = float(as_tensor(k, f"{path}: k"))
    if not number.is_integer():  # as NaN and the infinite ones are none
        raise UserError(f"{path}: k {k!r}, expected one whole number")
    return int(number)
