"""What a recipe does to activations before an autoencoder sees them: a norm limit and a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from expander_sae.errors import UserError
from expander_sae.study.recipes import Recipe

_CHUNK = 8192


class Activations(Protocol):
    """What `normalisation` asks of a pool: activations [N, m] by slices, and their norms [N]."""

    @property
    def path(self) -> str | Path: ...
    @property
    def m(self) -> int: ...
    @property
    def activations(self) -> Any: ...
    @property
    def norms(self) -> np.ndarray: ...
    def check_tokens(self, tokens: int) -> None: ...


@dataclass(frozen=True)
class Normalisation:
    """What a recipe does to the activations before the autoencoder sees them.

    Args:
        limit: tokens of a larger norm are passed through, not encoded (inf keeps every token).
        scale: factor from model units to the autoencoder's.
        mean: float32[m], mean kept activation in model units.
        kept: int64[K], rows of the kept tokens.
    """

    limit: float
    scale: float
    mean: np.ndarray
    kept: np.ndarray

    @property
    def norm_limit(self) -> float | None:
        """The limit as JSON can say it: None is none, since JSON has no infinity."""
        return self.limit if math.isfinite(self.limit) else None


def normalisation(pool: Activations, tokens: int, recipe: Recipe) -> Normalisation:
    """Norm limit, scale and mean from the first `tokens` tokens of a training pool.

    limit = norm_limit · median norm; scale brings the mean kept norm to √m, where the recipe asks
    for it. Sums are in float64, a piece of the pool at a time.

    Raises:
        UserError: fewer tokens in the pool, a limit that leaves none, or zeros that cannot be scaled.
    """
    pool.check_tokens(tokens)
    norms = pool.norms[:tokens]
    limit = math.inf if recipe.norm_limit is None else float(recipe.norm_limit) * float(np.median(norms))
    kept = np.flatnonzero(norms <= limit).astype(np.int64)
    if not len(kept):
        raise UserError(
            f"recipe.norm_limit: found {recipe.norm_limit}, which leaves no token; expected more than 1"
        )
    total = np.zeros(pool.m, np.float64)
    for start in range(0, tokens, _CHUNK):
        rows = slice(start, min(start + _CHUNK, tokens))
        total += pool.activations[rows][norms[rows] <= limit].sum(axis=0, dtype=np.float64)
    scale = 1.0
    if recipe.scale_to_sqrt_m:
        mean_norm = float(norms[kept].mean())
        if mean_norm == 0.0:
            raise UserError(f"{pool.path}: every activation is zero, expected a trained model's")
        scale = math.sqrt(pool.m) / mean_norm
    return Normalisation(limit, scale, (total / len(kept)).astype(np.float32), kept)
