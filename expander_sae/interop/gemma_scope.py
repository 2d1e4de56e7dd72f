"""Files of Gemma Scope: params.npz, a JumpReLU whose encoder reads h and not h − b_dec (arXiv 2408.05147)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from expander_sae.errors import UserError, readable
from expander_sae.interop import formulas
from expander_sae.interop.dense import checked, from_dense
from expander_sae.interop.foreign_files import whole
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.foreign_folders import GEMMA_SCOPE

WEIGHTS = GEMMA_SCOPE.weights
_NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


def load(path: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Import params.npz, or the folder that has it. Names may begin with a small w.

    Raises:
        UserError: unreadable, an array that is missing or not known (of a transcoder, say), or a scaling
            factor other than 1.
    """
    path = Path(path)
    path = path / WEIGHTS if path.is_dir() else path
    damaged = (ValueError, EOFError, zipfile.BadZipFile)
    with readable(path, "a .npz of numbers", *damaged), np.load(path, allow_pickle=False) as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files}
    stored = {f"W_{name[2:]}" if name.startswith("w_") else name: part for name, part in stored.items()}
    factor = stored.pop("scaling_factor", None)
    if factor is not None and not bool((factor == 1).all()):
        raise UserError(f"{path}: scaling_factor, expected 1 of every feature")
    parts = whole(stored, _NAMES, path)
    for name in ("b_enc", "threshold"):
        if parts[name].shape != parts["W_dec"].shape[:1]:
            found, expected = list(parts[name].shape), list(parts["W_dec"].shape[:1])
            raise UserError(f"{path}: {name} of shape {found}, expected {expected}, as of W_dec")
    matrices = parts["W_enc"].transpose(0, -1).contiguous(), parts["W_dec"]
    weights = checked(formulas.jumprelu(matrices, parts["b_enc"], parts["b_dec"], parts["threshold"]), path)
    return from_dense(formulas.uncentred(weights), path, None, {"imported": "gemma_scope"}, backend)
