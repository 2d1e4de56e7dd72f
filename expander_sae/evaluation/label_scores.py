"""F1 of predicted labels, from sums by document, and how sure their mean is.

    F1 = 2·hits / (fired + has)

with, over the tokens, hits: predicted and labelled; fired: predicted; has: labelled. Sums by document are all
that a bootstrap over documents needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from expander_sae.measurements.bootstrap import bootstrap

LEVEL = 0.95


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


def summary(name: str, families: Sequence[LabelScores]) -> dict[str, float]:
    """`name`: the mean over families of the mean F1, and `name`_low and _high: its 95 % interval.

    Documents are resampled, and what was chosen is held fixed.
    """
    documents = len(families[0].has)

    def statistic(drawn: Mapping[str, np.ndarray], _: np.ndarray) -> np.ndarray:
        return np.mean([family.mean(drawn["test"]) for family in families], axis=0)

    found = bootstrap(statistic, {"test": documents}, seeds=1)
    values = {name: found.value}
    if interval := found.interval(LEVEL):
        values |= {f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return values
