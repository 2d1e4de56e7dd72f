"""Supports that are drawn by weights: sets of a few of r things, some more often than others."""

from __future__ import annotations

import numpy as np

from expander_sae.errors import UserError
from expander_sae.masks.families import Rows
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.rng import Integers

LARGEST = 4095
"""Weight of what is drawn most often. Whole numbers, so that draws are the same on every machine."""
_COLUMNS = 4096


def whole(shares: np.ndarray) -> np.ndarray:
    """int64 [r]: weights from 1 to `LARGEST`, nearly proportional to shares, which are not below 0."""
    return np.maximum(1, np.rint(LARGEST * shares / shares.max())).astype(np.int64)


def weighted_subsets(weights: np.ndarray, n: int, d: int, stream: Integers) -> Rows:
    """int32 [n, d]: in each row d of r things, drawn one after the other without replacement, ascending.

    At each draw thing i of those left has a probability proportional to weights[i], a whole number above 0.
    Time O(n·d·r).
    """
    rows = np.empty((n, d), dtype=np.int32)
    for start in range(0, n, _COLUMNS):
        part = rows[start : start + _COLUMNS]
        left, every = np.tile(weights, (len(part), 1)), np.arange(len(part))
        for place in range(d):
            ends = left.cumsum(axis=1)
            drawn = stream.below(ends[:, -1], len(part))
            part[:, place] = (ends <= drawn[:, None]).sum(axis=1)
            left[every, part[:, place]] = 0
    return np.sort(rows, axis=1)


def weighted_mask(recipe: MaskRecipe, weights: np.ndarray) -> Mask:
    """The mask of n columns of d of the things that these weights [r] are of.

    Raises:
        UserError: weights that are no whole numbers from 1 to 65,535, or fewer than d.
    """
    if weights.ndim != 1 or len(weights) < recipe.d or not ((weights >= 1) & (weights < 1 << 16)).all():
        expected = f"at least d = {recipe.d} from 1 to 65,535"
        raise UserError(f"weights of {recipe.family}: found {weights.shape} numbers, expected {expected}")
    inner = MaskRecipe(recipe.family, len(weights), recipe.n, recipe.d, recipe.seed)
    stream = Integers(recipe.seed, f"mask/{recipe.family}/{inner.m}/{recipe.n}/{recipe.d}")
    rows = weighted_subsets(weights.astype(np.int64), recipe.n, recipe.d, stream)
    return Mask(inner, rows, np.full(recipe.n, recipe.d, dtype=np.int32))
