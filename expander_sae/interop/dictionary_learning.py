"""Folders of dictionary_learning's AutoEncoderTopK: ae.pt and config.json.

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
from expander_sae.interop.dense import Weights, from_dense, mask_record, to_dense
from expander_sae.interop.fidelity import Fidelity, measured_record
from expander_sae.interop.foreign_files import read_config, required, same_size, whole
from expander_sae.interop.foreign_keys import (
    DICTIONARY_LEARNING,
    DICTIONARY_LEARNING_BUFFER,
    DICTIONARY_LEARNING_TRAINER,
)
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.arrays import as_tensor
from expander_sae.storage.files import atomic_path, write_json

CONFIG, WEIGHTS = "config.json", "ae.pt"
CLASS = "AutoEncoderTopK"
_NAMES = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec")


def export(
    autoencoder: SparseAutoencoder,
    folder: str | Path,
    activations: Tensor | np.ndarray | None = None,
    say: bool = True,
) -> Fidelity | None:
    """Write a dense folder for `AutoEncoderTopK.from_pretrained(folder / "ae.pt")`; see `saelens.export`."""
    folder = Path(folder)
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
    """Import an AutoEncoderTopK; one that `export` wrote comes back onto its mask.

    A BatchTopKSAE has the same tensors, but selects by its threshold: without config.json, which names
    the class, a file with a threshold is refused. k is that of ae.pt, or where it has none, of config.json.

    Raises:
        UserError: unreadable, not of that class, without k, or a key or tensor that is not known.
    """
    folder = Path(folder)
    path, config_path = folder / WEIGHTS, folder / CONFIG
    config = read_config(config_path) if config_path.exists() else {}
    trainer = _trainer(config, config_path)
    damaged = (RuntimeError, ValueError, LookupError, pickle.UnpicklingError, EOFError)
    with readable(path, "a file of plain tensors", *damaged):
        stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors = dict(stored) if isinstance(stored, dict) else {}
    threshold, own_k = tensors.pop("threshold", None), tensors.pop("k", None)
    encoder, b_enc, decoder, b_dec = whole(tensors, _NAMES, path).values()
    _check_threshold(threshold, trainer.get("dict_class"), path)
    k = required(trainer, "k", int, config_path) if own_k is None else _whole_number(own_k, path)
    weights = Weights(encoder, decoder.transpose(0, -1).contiguous(), b_enc, b_dec, k)
    same_size(trainer, {"activation_dim": b_dec.numel(), "dict_size": b_enc.numel()}, config_path)
    about = {"imported": "dictionary_learning"}
    return from_dense(weights, folder, config.get("expander_sae"), about, backend)


def _trainer(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """What config.json says of the autoencoder, every key of it checked."""
    DICTIONARY_LEARNING.check(config, path)
    if config.get("buffer") is not None:
        DICTIONARY_LEARNING_BUFFER.check(required(config, "buffer", dict, path), path)
    trainer = required(config, "trainer", dict, path) if "trainer" in config else {}
    if trainer.get("dict_class") not in (None, CLASS):
        raise UserError(f"{path}: dict_class {trainer['dict_class']!r}, expected {CLASS!r}")
    DICTIONARY_LEARNING_TRAINER.check(trainer, path)
    return trainer


def _check_threshold(threshold: Any, kind: Any, path: Path) -> None:
    """Refuse what may be a BatchTopKSAE; an AutoEncoderTopK has a threshold too, and does not use it."""
    if kind is not None or not isinstance(threshold, Tensor):
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
