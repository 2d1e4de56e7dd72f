"""Collisions among the columns that fire together.

For the features S that are active on a token, Γ(S) is the set of rows that any of their columns
uses and edges(S) = Σ_{j∈S} d_j (d·|S| on a regular mask):

    coverage          |Γ(S)|
    deficit           1 − |Γ(S)| / edges(S)
    duplicate edges   edges(S) − |Γ(S)|

The worst deficit over all sets of a size is what `certificates` bounds; this is its value on the
sets that occur.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask
from expander_sae.model.dictionary import SparseCode
from expander_sae.rng import Integers

_CELLS = 1 << 22
"""Most entries of a gathered [B, k, w] piece, and of a [B, m] table of rows."""


@dataclass(frozen=True, eq=False)
class Collisions:
    """int64 [B] each: |S|, edges(S) and |Γ(S)| of every sample."""

    active: np.ndarray
    edges: np.ndarray
    coverage: np.ndarray

    @property
    def duplicate_edges(self) -> np.ndarray:
        """int64 [B]: edges that reach a row which another edge of S has."""
        return self.edges - self.coverage

    @property
    def deficit(self) -> np.ndarray:
        """float64 [B]: 1 − |Γ(S)| / edges(S), 0 for an empty S."""
        return self.duplicate_edges / np.maximum(self.edges, 1)

    def summary(self) -> dict[str, float]:
        """Means over the samples, of which there must be one."""
        if not len(self.active):
            raise UserError("collisions: no token was encoded, expected at least one")
        return {
            "collision_coverage": float(self.coverage.mean()),
            "collision_deficit": float(self.deficit.mean()),
            "collision_duplicate_edges": float(self.duplicate_edges.mean()),
        }


def collisions(code: SparseCode, mask: Mask) -> Collisions:
    """Collisions of the features with a non-zero value in each sample. Time O(B·(k·w + m))."""
    index = torch.where(code.value != 0, code.index, -1).cpu().numpy()
    batch, k = index.shape
    m, n = mask.recipe.m, mask.recipe.n
    if index.size and index.max() >= n:
        raise UserError(f"collisions: found feature {int(index.max())}, expected features of a mask of {n}")
    valid = mask.valid()
    coverage = np.zeros(batch, dtype=np.int64)
    step = max(1, _CELLS // max(1, m, k * mask.width))
    for start in range(0, batch, step):
        part = index[start : start + step]
        sample, place = np.nonzero(part >= 0)
        column = part[sample, place]
        cell = (sample[:, None] * m + mask.rows[column])[valid[column]]
        reached = np.zeros(len(part) * m, dtype=bool)
        reached[cell] = True
        coverage[start : start + step] = reached.reshape(len(part), m).sum(axis=1)
    present = index >= 0
    edges = (mask.degrees.astype(np.int64)[np.maximum(index, 0)] * present).sum(axis=1)
    return Collisions(present.sum(axis=1), edges, coverage)


def relabelled(code: SparseCode, n: int, seed: int) -> SparseCode:
    """The same code under a random renaming of the n features: a null for `collisions`.

    Firing rates and who fires with whom stay; which columns they have becomes chance. Collisions
    above those of the null mean that features fire together because, or so that, they share rows.
    """
    names = torch.from_numpy(Integers(seed, "collisions/relabelled").permutation(n)).to(code.index.device)
    return SparseCode(torch.where(code.index >= 0, names[code.index.clamp(min=0)], -1), code.value)
