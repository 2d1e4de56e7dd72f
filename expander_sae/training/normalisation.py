"""What a recipe does to activations before an autoencoder sees them: a norm limit and a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.study.recipes import Recipe

CHUNK = 8192


class Activations(Protocol):
    """A pool: `activations` [N, m], a tensor or an array; their `norms` float64 [N]; its name in messages."""

    path: Any
    activations: Any
    norms: np.ndarray


@dataclass(frozen=True)
class Normalisation:
    """Tokens of a larger norm than `limit` are passed through; `scale` leads from model units to training's.

    `mean`, float32 [m], is that of the kept activations in model units; `kept`, int64 [K], are their rows.
    """

    limit: float
    scale: float
    mean: np.ndarray
    kept: np.ndarray

    @property
    def norm_limit(self) -> float | None:
        """The limit for JSON, which has no infinity."""
        return self.limit if math.isfinite(self.limit) else None


def float32_rows(activations: Tensor | np.ndarray, start: int, end: int) -> np.ndarray:
    """Rows start to end, from any floating dtype and device."""
    rows = activations[start:end]
    return rows.detach().float().cpu().numpy() if isinstance(rows, Tensor) else rows


def normalisation(pool: Activations, tokens: int, recipe: Recipe) -> Normalisation:
    """Norm limit, scale and mean from the first `tokens` tokens of a training pool.

    limit = norm_limit · median norm; scale brings the mean kept norm to √m, where the recipe asks for it.
    Sums are in float64, a piece of the pool at a time. `UserError`: the pool holds fewer tokens, the limit
    leaves none, or zeros cannot be scaled.
    """
    if not 0 < tokens <= len(pool.norms):
        raise UserError(f"{pool.path}: found {len(pool.norms)} tokens, expected {tokens}")
    norms = pool.norms[:tokens]
    limit = math.inf if recipe.norm_limit is None else float(recipe.norm_limit) * float(np.median(norms))
    kept = np.flatnonzero(norms <= limit).astype(np.int64)
    if not len(kept):
        found = f"{recipe.norm_limit}, which leaves no token"
        raise UserError(f"recipe.norm_limit: found {found}; expected more than 1")
    total = np.zeros(pool.activations.shape[1], np.float64)
    for start in range(0, tokens, CHUNK):
        end = min(start + CHUNK, tokens)
        rows = float32_rows(pool.activations, start, end)[norms[start:end] <= limit]
        total += rows.sum(axis=0, dtype=np.float64)
    scale = 1.0
    if recipe.scale_to_sqrt_m:
        mean_norm = float(norms[kept].mean())
        if mean_norm == 0.0:
            raise UserError(f"{pool.path}: every activation is zero, expected a trained model's")
        scale = math.sqrt(len(total)) / mean_norm
    return Normalisation(limit, scale, (total / len(kept)).astype(np.float32), kept)


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """The kept tokens of activations [N, m] in units of training, a batch of `device` and `dtype` at a time.

    The activations are of any floating dtype and device, and left where they are. The ids and documents of
    all N tokens come with them where they are known.
    """

    activations: Tensor
    normalisation: Normalisation
    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32
    token_id: np.ndarray | None = None
    document: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.normalisation.kept)

    @property
    def place(self) -> np.ndarray:
        """int64 [K]: the rows of the kept tokens."""
        return self.normalisation.kept

    def centred(self, start: int, end: int) -> Tensor:
        """Kept tokens start to end less the mean, in the model's units: float64 on the CPU."""
        rows = torch.from_numpy(self.place[start:end]).to(self.activations.device)
        found = self.activations.index_select(0, rows).cpu().double()
        return found - torch.from_numpy(self.normalisation.mean).double()

    def draw(self, stream: torch.Generator, step: int, size: int) -> Tensor:
        """int64 [size]: positions among the kept tokens, drawn with replacement, whatever the step."""
        return torch.randint(len(self), (size,), generator=stream)

    @cached_property
    def _rows(self) -> Tensor:
        """`place` beside the activations."""
        return torch.from_numpy(self.place).to(self.activations.device)

    @property
    def is_near(self) -> bool:
        """Whether the activations lie where training computes, so that a step may gather them."""
        return self.activations.device.type == torch.device(self.device).type

    def brought_near(self, room: int) -> KeptTokens:
        """The same tokens on the device of training if they take at most `room` bytes; else as they are."""
        used = self.activations[: int(self.place[-1]) + 1]
        if self.is_near or used.numel() * used.element_size() > room:
            return self
        return replace(self, activations=used.to(self.device))

    def batch(self, positions: Tensor) -> Tensor:
        """[B, m] at int64 positions [B] among the kept tokens."""
        rows = self._rows[positions.to(self._rows.device)]
        # Indexing with [rows] takes nearly twice as long on a CPU.
        found = self.activations.index_select(0, rows).to(self.dtype)
        return (found * self.normalisation.scale).to(self.device)
