"""How well a code rebuilds activations, over the tokens that the autoencoder encodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.inference import Inference

BATCH = 4096
"""Tokens inferred at once: enough that a pursuit's product of all columns is spread over many."""


@dataclass(frozen=True)
class Reconstruction:
    """Per-token sums of one inference on encoded tokens h (float64 arrays [N]).

    squared_error: ‖h − ĥ‖². squared_norm: ‖h‖². squared_deviation: ‖h − h̄‖², h̄ the mean of
    the tokens given. active: non-zero code entries. ever_fired: bool [n].
    """

    squared_error: np.ndarray
    squared_norm: np.ndarray
    squared_deviation: np.ndarray
    active: np.ndarray
    ever_fired: np.ndarray

    @property
    def token_relative_error(self) -> np.ndarray:
        """‖h − ĥ‖/‖h‖ per token; 0/0 counts as 0."""
        tiny = np.finfo(np.float64).tiny
        return np.sqrt(self.squared_error) / np.maximum(np.sqrt(self.squared_norm), tiny)

    def summary(self) -> dict[str, float]:
        """relative_error (mean over tokens), explained_variance (1 − Σ‖h−ĥ‖²/Σ‖h−h̄‖²),
        dead_fraction (features that never fired here), l0 (mean active features)."""
        variance = float(self.squared_deviation.sum())
        explained = 1.0 - float(self.squared_error.sum()) / variance if variance > 0 else float("nan")
        return {
            "relative_error": float(self.token_relative_error.mean()),
            "explained_variance": explained,
            "dead_fraction": 1.0 - float(self.ever_fired.mean()),
            "l0": float(self.active.mean()),
        }


@torch.no_grad()
def reconstruct(
    autoencoder: SparseAutoencoder, activations: np.ndarray, inference: Inference
) -> tuple[np.ndarray, Reconstruction]:
    """(ĥ float32 [N, m], its sums) for activations [N, m] in the model's units."""
    tokens = len(activations)
    rebuilt = np.empty((tokens, autoencoder.m), dtype=np.float32)
    squared_error, squared_norm, deviation, active = (np.zeros(tokens) for _ in range(4))
    fired = torch.zeros(autoencoder.n, dtype=torch.bool)
    device = autoencoder.b_dec.device
    mean = torch.from_numpy(activations.mean(axis=0, dtype=np.float64)).to(device)
    for start in range(0, tokens, BATCH):
        part = slice(start, min(start + BATCH, tokens))
        h = torch.from_numpy(np.ascontiguousarray(activations[part])).to(device)
        code = inference(autoencoder, h)
        output = autoencoder.decode(code)
        rebuilt[part] = output.cpu().numpy()
        wide = h.double()
        squared_error[part] = (wide - output.double()).square().sum(1).cpu().numpy()
        squared_norm[part] = wide.square().sum(1).cpu().numpy()
        deviation[part] = (wide - mean).square().sum(1).cpu().numpy()
        active[part] = (code.value != 0).sum(1).cpu().numpy()
        fired[code.index[code.value != 0].cpu()] = True
    return rebuilt, Reconstruction(squared_error, squared_norm, deviation, active, fired.numpy())
