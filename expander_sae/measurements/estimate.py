"""A metric over the seeds of a cell: the values that count, their mean and its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

# Not scipy.stats, which takes seconds to import.
from scipy.special import stdtrit


def student(probability: float, freedom: float) -> float:
    """The quantile of Student's t."""
    return float(stdtrit(freedom, probability))


def half_interval(values: Iterable[float]) -> float:
    """Half the 95 % interval of the mean, t(0.975, s−1)·sd/√s over s seeds; NaN below two seeds."""
    values = list(values)
    size = len(values)
    if size < 2:
        return math.nan
    mean = sum(values) / size
    variance = sum((value - mean) ** 2 for value in values) / (size - 1)
    return student(0.975, size - 1) * math.sqrt(variance / size)


@dataclass(frozen=True)
class Estimate:
    """A metric of one cell: seed → finite value of each seed that did not diverge.

    Args:
        asked: seeds that were run.
        diverged: how many of them diverged and are in no mean.
        documents: half the 95 % interval over documents; NaN where it is not known.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    asked: int = 0
    diverged: int = 0
    documents: float = math.nan

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def missing(self) -> int:
        """Seeds that were run, did not diverge and have no finite value."""
        return self.asked - self.diverged - len(self.values)

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN where there is none."""
        return sum(self.values.values()) / len(self.values) if self.values else math.nan

    @property
    def half(self) -> float:
        """Half the 95 % interval of the mean: over seeds, over documents, or both."""
        halves = (half_interval(self.values.values()), self.documents)
        known = [half for half in halves if math.isfinite(half)]
        return math.hypot(*known) if known else math.nan

    def paired(self, other: Estimate, combine: Callable[[float, float], float]) -> Estimate:
        """`combine` of both, seed by seed, on the seeds that both have."""
        shared = sorted(self.values.keys() & other.values.keys())
        return Estimate(
            {seed: combine(self.values[seed], other.values[seed]) for seed in shared}, len(shared)
        )

    def less(self, other: Estimate) -> Estimate:
        """The paired difference self − other."""
        return self.paired(other, lambda mine, its: mine - its)

    def scaled(self, factor: float) -> Estimate:
        """Every value times a number."""
        values = {s: factor * v for s, v in self.values.items()}
        return Estimate(values, self.asked, self.diverged, abs(factor) * self.documents)
