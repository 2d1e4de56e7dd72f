"""Codes of many activations, with progress."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.errors import UserError
from expander_sae.machine.progress import Progress
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.inference import Inference
from expander_sae.storage.arrays import widened

BATCH = 512


def encoded_rows(activations: np.ndarray, about: dict[str, Any], origin: Path) -> np.ndarray:
    """int64: the rows whose norm is at most the `norm_limit` that the weights were trained with."""
    limit = math.inf if about.get("norm_limit") is None else float(about["norm_limit"])
    kept = [
        start + np.flatnonzero(np.linalg.norm(activations[start : start + 8192], axis=1) <= limit)
        for start in range(0, len(activations), 8192)
    ]
    rows = np.concatenate(kept)
    if not rows.size:
        raise UserError(f"{origin}: no row has a norm within the weights' norm_limit {limit:g}")
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


def joined(codes: Iterator[SparseCode]) -> SparseCode:
    """One code of all samples."""
    parts = list(codes)
    return SparseCode(torch.cat([part.index for part in parts]), torch.cat([part.value for part in parts]))
