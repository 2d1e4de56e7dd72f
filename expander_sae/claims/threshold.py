"""The threshold of a claim: the values of its statistic for which it is true."""

from __future__ import annotations

import math
from dataclasses import dataclass

from expander_sae.errors import UserError

Interval = tuple[float, float]

_LOW, _HIGH = ("above", "at_least"), ("below", "at_most")


@dataclass(frozen=True)
class Region:
    """The values from `low` to `high`; an open end leaves its bound out."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def contains(self, interval: Interval) -> bool:
        """Whether every value of the interval is in the region."""
        low, high = interval
        above = low > self.low or (low == self.low and not self.low_open)
        below = high < self.high or (high == self.high and not self.high_open)
        return above and below

    def excludes(self, interval: Interval) -> bool:
        """Whether no value of the interval is in the region."""
        low, high = interval
        too_low = high < self.low or (high == self.low and self.low_open)
        too_high = low > self.high or (low == self.high and self.high_open)
        return too_low or too_high

    def margin(self, value: float) -> float:
        """Distance of a value to the nearest bound; negative outside the region."""
        return min(value - self.low, self.high - value)

    def __str__(self) -> str:
        low = f"{'above' if self.low_open else 'at least'} {self.low:g}"
        high = f"{'below' if self.high_open else 'at most'} {self.high:g}"
        return " and ".join([low] * math.isfinite(self.low) + [high] * math.isfinite(self.high))


def region(threshold: dict[str, float], key: str) -> Region:
    """The region of a `threshold` mapping: above or at_least, below or at_most; it must hold a value."""
    if not threshold:
        raise UserError(f"{key}: found no bound, expected {', '.join((*_LOW, *_HIGH))}")
    for pair in (_LOW, _HIGH):
        if all(name in threshold for name in pair):
            raise UserError(f"{key}: found both {pair[0]} and {pair[1]}, expected one of them")
    low = next((float(threshold[name]) for name in _LOW if name in threshold), -math.inf)
    high = next((float(threshold[name]) for name in _HIGH if name in threshold), math.inf)
    found = Region(low, high, "above" in threshold, "below" in threshold)
    if found.low > found.high:
        raise UserError(f"{key}: found {found.low:g} to {found.high:g}, which holds no value")
    return found
