"""How well a code rebuilds activations, over the tokens that the autoencoder encodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expander_sae.machine.piece_sizes import EVALUATED_TOKENS
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode
from expander_sae.storage.arrays import HALF, as_tensor, widened

Infer = Callable[[SparseAutoencoder, Tensor], SparseCode]
"""An inference of the table, or any function of (autoencoder, activations [B, m])."""


@dataclass(frozen=True)
class Reconstruction:
    """Of one inference on encoded tokens h, float64 [N] each: ‖h − ĥ‖², ‖h‖², ‖h − h̄‖² with h̄ the mean of
    the tokens given, and the number of non-zero code entries; and bool [n], which features ever fired."""

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
    autoencoder: SparseAutoencoder, activations: np.ndarray, inference: Infer
) -> tuple[np.ndarray, Reconstruction]:
    """(ĥ float32 [N, m], its sums) for activations [N, m] in the model's units."""
    rebuilt = np.empty((len(activations), autoencoder.m), dtype=np.float32)
    device = autoencoder.b_dec.device

    def read(part: slice) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(activations[part])).to(device)

    def keep(part: slice, _: Tensor, output: Tensor) -> None:
        rebuilt[part] = widened(output).cpu().numpy()

    mean = torch.from_numpy(activations.mean(axis=0, dtype=np.float64)).to(device)
    return rebuilt, _sums(autoencoder, len(activations), mean, read, inference, keep)


@torch.no_grad()
def measure(
    autoencoder: SparseAutoencoder,
    activations: Tensor | np.ndarray,
    inference: Infer,
    rows: np.ndarray | None = None,
) -> tuple[Reconstruction, float]:
    """(sums, mean cosine of h and ĥ; a row of zeros counts as 0), without holding ĥ or a copy of activations.

    An autoencoder of 16 bits encodes in its own type; errors are those against activations in float32. The
    activations [N, m], of any device and dtype, are read a piece at a time, so that a mapped file stays on
    disk; `rows` of them, None is all.
    """
    tensor = as_tensor(activations).detach()
    count = len(tensor) if rows is None else len(rows)
    of = autoencoder.b_dec
    dtype = torch.float32 if of.dtype in HALF else of.dtype

    def read(part: slice) -> Tensor:
        chosen = tensor[part] if rows is None else tensor[torch.from_numpy(rows[part]).to(tensor.device)]
        return chosen.to(of.device, dtype)

    total = torch.zeros(autoencoder.m, dtype=torch.float64, device=of.device)
    for start in range(0, count, EVALUATED_TOKENS):
        total += read(slice(start, min(start + EVALUATED_TOKENS, count))).sum(dim=0, dtype=torch.float64)
    inner, length = np.zeros(count), np.zeros(count)

    def compare(part: slice, h: Tensor, output: Tensor) -> None:
        wide, rebuilt = h.double(), output.double()
        inner[part] = (wide * rebuilt).sum(1).cpu().numpy()
        length[part] = rebuilt.square().sum(1).cpu().numpy()

    sums = _sums(autoencoder, count, total / count, read, inference, compare)
    norms = np.sqrt(length * sums.squared_norm)
    return sums, float((inner / np.maximum(norms, np.finfo(np.float64).tiny)).mean())


def _sums(
    autoencoder: SparseAutoencoder,
    tokens: int,
    mean: Tensor,
    read: Callable[[slice], Tensor],
    inference: Infer,
    told: Callable[[slice, Tensor, Tensor], None],
) -> Reconstruction:
    """The sums over `read(part)` of all parts, whose (part, h, ĥ) `told` hears of; mean: float64 [m]."""
    squared_error, squared_norm, deviation, active = (np.zeros(tokens) for _ in range(4))
    fired = torch.zeros(autoencoder.n, dtype=torch.bool)
    for start in range(0, tokens, EVALUATED_TOKENS):
        part = slice(start, min(start + EVALUATED_TOKENS, tokens))
        h = read(part)
        code = inference(autoencoder, h)
        output = autoencoder.decode(code)
        told(part, h, output)
        wide = h.double()
        squared_error[part] = (wide - output.double()).square().sum(1).cpu().numpy()
        squared_norm[part] = wide.square().sum(1).cpu().numpy()
        deviation[part] = (wide - mean).square().sum(1).cpu().numpy()
        active[part] = (code.value != 0).sum(1).cpu().numpy()
        fired[code.index[code.value != 0].cpu()] = True
    return Reconstruction(squared_error, squared_norm, deviation, active, fired.numpy())
