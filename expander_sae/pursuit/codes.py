"""Codes of many activations, with progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.machine.progress import Progress
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.inference import Inference
from expander_sae.storage.arrays import widened

BATCH = 512


def encoded_rows(
    autoencoder: SparseAutoencoder,
    activations: Tensor | np.ndarray,
    origin: str | Path,
    norms: np.ndarray | None = None,
) -> np.ndarray:
    """int64: the rows that `autoencoder.encoded` tells; `UserError` that names `origin`: there is none."""
    rows = np.flatnonzero(autoencoder.encoded(activations, norms).numpy())
    if not rows.size:
        limit = autoencoder.norm_limit
        found = f"found no token of {len(activations)} to encode"
        raise UserError(f"{origin}: {found}, expected one or more within norm_limit {limit:g}")
    return rows


@torch.no_grad()
def codes_of(
    autoencoder: SparseAutoencoder, activations: np.ndarray, inference: Inference, label: str
) -> Iterator[SparseCode]:
    """Codes of activations [N, m], BATCH rows at a time, on the CPU; values of 16 bits as float32."""
    device = autoencoder.b_dec.device
    with Progress(label, len(activations), "token") as progress:
        for start in range(0, len(activations), BATCH):
            part = np.array(activations[start : start + BATCH])  # a mapped file is not writable
            code = inference(autoencoder, torch.from_numpy(part).to(device, autoencoder.b_dec.dtype))
            progress.advance(len(part))
            yield SparseCode(code.index.cpu(), widened(code.value).cpu())
