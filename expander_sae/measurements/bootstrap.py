"""How sure a statistic of runs is: a bootstrap over documents and over seeds, from sums alone.

Seeds and documents are crossed: every run is measured on the same documents. A statistic is a
function of weights, so that one draw weighs the documents of all compared runs alike (paired) and
the seeds of all compared settings alike.

Three bootstraps give the variance: of documents, V_d, of seeds, V_s, and of both at once, V_b.
With seed effects of variance a, document effects b and their interaction e,

    V_s ≈ a/S + e/(SD)      V_d ≈ b/D + e/(SD)      V_b ≈ a/S + b/D + 3e/(SD)

(Owen, The pigeonhole bootstrap, 2007), so 2(V_s + V_d) − V_b is the variance a/S + b/D + e/(SD).
A draw takes one unit fewer than there are, which makes each term unbiased (Rao and Wu, 1988).

The interval is estimate ± t·standard error with Satterthwaite's degrees of freedom, variance²/Σ Vᵢ²/νᵢ
over seeds and documents: the interaction is in both V and is not counted a third time. Percentiles
of the draws are not used: at the levels that several claims ask for, a few seeds cannot reach
far enough into the tails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from expander_sae.measurements.estimate import student
from expander_sae.rng import Integers

DRAWS = 2000

Statistic = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]
"""(document weights float64[R or 1, D] by split, seed weights float64[R or 1, S]) → float64[R or 1]."""


@dataclass(frozen=True)
class Bootstrapped:
    """A statistic with all weights 1, and its standard error.

    Args:
        standard_error: NaN where nothing can be resampled or a draw is not finite.
        freedom: degrees of freedom of the interval.
    """

    value: float
    standard_error: float
    freedom: float

    def interval(self, level: float) -> tuple[float, float] | None:
        """The two-sided interval at `level`, or None without a finite standard error."""
        if not (math.isfinite(self.value) and math.isfinite(self.standard_error)):
            return None
        if self.standard_error == 0.0:
            return self.value, self.value
        half = student(0.5 + level / 2, self.freedom) * self.standard_error
        return self.value - half, self.value + half


@lru_cache(maxsize=64)
def _weights(units: int, draws: int, seed: int, purpose: str) -> np.ndarray:
    """How often each unit is drawn, float64 [draws, units]: units − 1 at a time, with replacement."""
    drawn = Integers(seed, purpose).below(units, draws * (units - 1)).reshape(draws, units - 1)
    flat = drawn + units * np.arange(draws)[:, None]
    weights = np.bincount(flat.ravel(), minlength=draws * units).reshape(draws, units).astype(np.float64)
    weights.flags.writeable = False
    return weights


def bootstrap(
    statistic: Statistic, documents: Mapping[str, int], seeds: int, draws: int = DRAWS, seed: int = 0
) -> Bootstrapped:
    """The statistic and its standard error over documents and seeds.

    With one seed the error is that of the documents, given the runs. The same (counts, draws, seed) always
    draw the same weights.

    Args:
        documents: number of documents of each split; splits are resampled independently; empty for a
            statistic that has only seeds.
    """
    ones = {split: np.ones((1, count)) for split, count in documents.items()}
    every_seed = np.ones((1, seeds))
    value = float(statistic(ones, every_seed)[0])
    # A single document cannot be resampled.
    sizes = {split: count for split, count in documents.items() if count > 1}
    drawn = {
        split: _weights(count, draws, seed, f"bootstrap documents {split}") for split, count in sizes.items()
    }
    drawn = {**ones, **drawn}
    drawn_seeds = _weights(seeds, draws, seed, "bootstrap seeds") if seeds > 1 else None
    over_documents = _variance(statistic(drawn, every_seed)) if sizes else None
    if drawn_seeds is None:
        if over_documents is None:
            return Bootstrapped(value, math.nan, math.nan)
        return Bootstrapped(value, math.sqrt(over_documents), min(sizes.values()) - 1)
    over_seeds = _variance(statistic(ones, drawn_seeds))
    if over_documents is None:
        return Bootstrapped(value, math.sqrt(over_seeds), seeds - 1)
    both = _variance(statistic(drawn, drawn_seeds))
    if not math.isfinite(over_seeds + over_documents + both):
        return Bootstrapped(value, math.nan, math.nan)
    variance, freedom = crossed(over_seeds, over_documents, both, seeds, min(sizes.values()))
    return Bootstrapped(value, math.sqrt(variance), freedom)


def crossed(
    over_seeds: float, over_documents: float, both: float, seeds: int, documents: int
) -> tuple[float, float]:
    """(variance, degrees of freedom) of a mean over seeds and documents, from the three bootstraps."""
    variance = max(2 * (over_seeds + over_documents) - both, over_seeds, over_documents)
    parts = over_seeds**2 / (seeds - 1) + over_documents**2 / (documents - 1)
    return variance, variance**2 / parts if parts > 0 else float(seeds - 1)


def _variance(values: np.ndarray) -> float:
    """Variance of the draws; rounding errors of a statistic that does not vary count as 0."""
    if not np.isfinite(values).all():
        return math.nan
    centre = float(np.abs(values).max(initial=0.0))
    spread = float(values.var())
    return 0.0 if math.sqrt(spread) <= 1e-13 * centre else spread
