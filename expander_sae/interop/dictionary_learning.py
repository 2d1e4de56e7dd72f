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
from expander_sae.interop.foreign_files import read_config, required
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import atomic_path, write_json

CONFIG, WEIGHTS = "config.json", "ae.pt"
CLASS = "AutoEncoderTopK"
_NAMES = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k")


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
        "decoder.weight": dense.decoder.T.contiguous(),
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
    the class, a file with a threshold is refused.

    Raises:
        UserError: unreadable, not of that class, or unequal decoder norms.
    """
    folder = Path(folder)
    path = folder / WEIGHTS
    config = read_config(folder / CONFIG) if (folder / CONFIG).exists() else {}
    trainer = required(config, "trainer", dict, folder / CONFIG) if "trainer" in config else {}
    kind = trainer.get("dict_class")
    if kind not in (None, CLASS):
        raise UserError(f"{folder / CONFIG}: dict_class {kind!r}, expected {CLASS!r}")
    damaged = (RuntimeError, ValueError, LookupError, pickle.UnpicklingError, EOFError)
    with readable(path, "a file of plain tensors", *damaged):
        stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors = stored if isinstance(stored, dict) else {}
    missing = sorted(name for name in _NAMES if not isinstance(tensors.get(name), Tensor))
    if missing:
        raise UserError(f"{path}: no tensor {missing[0]}, expected those of {CLASS}")
    threshold = tensors.get("threshold")
    if kind is None and isinstance(threshold, Tensor) and bool((threshold >= 0).any()):
        raise UserError(
            f"{path}: a threshold of {float(threshold.max()):.4g} and no class, expected {CONFIG} with "
            f"trainer.dict_class {CLASS!r}; a BatchTopKSAE has the same tensors and selects by the threshold"
        )
    if stored["k"].numel() != 1:
        raise UserError(f"{path}: k of shape {list(stored['k'].shape)}, expected one number")
    encoder, b_enc, decoder, b_dec = (stored[name].float() for name in _NAMES[:4])
    weights = Weights(encoder, decoder.transpose(0, -1).contiguous(), b_enc, b_dec, int(stored["k"]))
    about = {"imported": "dictionary_learning"}
    return from_dense(weights, folder, config.get("expander_sae"), about, backend)
