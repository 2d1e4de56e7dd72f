"""F1 of predicted labels, from sums by document.

    F1 = 2·hits / (fired + has)

with, over the tokens, hits: predicted and labelled; fired: predicted; has: labelled. Sums by document are all
that weights of documents need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class LabelScores:
    """float64 [D, L] each: of the tokens of each document, for each label of a family."""

    hits: np.ndarray
    fired: np.ndarray
    has: np.ndarray

    def f1(self, weights: np.ndarray | None = None) -> np.ndarray:
        """F1 of each label: [R, L] for document weights [R, D], all 1 by default; NaN where none is left."""
        if weights is None:
            weights = np.ones((1, len(self.has)))
        below = weights @ (self.fired + self.has)
        return np.divide(2 * (weights @ self.hits), below, out=np.full(below.shape, np.nan), where=below > 0)

    def mean(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Mean F1 over labels: [R]."""
        f1 = self.f1(weights)
        there = np.isfinite(f1)
        return np.where(there, f1, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
