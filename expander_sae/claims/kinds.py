"""The kinds of claim: which cells each compares, by which statistic, and what decides it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expander_sae.errors import UserError

HOLDS, FAILS, INCONCLUSIVE, NOT_RUN = "holds", "fails", "inconclusive", "not run"

Combine = Callable[..., np.ndarray]
"""The cells' values, each [R] or [S], in the order of `Comparison.cells` → the statistic."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Region:
    """The values of the statistic for which the claim is true."""

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


def region(threshold: Any, key: str) -> Region:
    """The region of a `threshold` mapping: above or at_least, below or at_most."""
    allowed = ("above", "at_least", "below", "at_most")
    if not isinstance(threshold, dict) or not threshold:
        raise UserError(f"{key}: found {threshold!r}, expected a mapping of {', '.join(allowed)}")
    for name, value in threshold.items():
        if name not in allowed:
            raise UserError(f"{key}: unknown key {name!r}, expected {', '.join(allowed)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{key}.{name}: found {value!r}, expected a number")
    for pair in (("above", "at_least"), ("below", "at_most")):
        if all(name in threshold for name in pair):
            raise UserError(f"{key}: found both {pair[0]} and {pair[1]}, expected one of them")
    bounds: dict[str, float] = {name: float(value) for name, value in threshold.items()}
    found = Region(
        bounds.get("above", bounds.get("at_least", -math.inf)),
        bounds.get("below", bounds.get("at_most", math.inf)),
        "above" in threshold,
        "below" in threshold,
    )
    if found.low > found.high:
        raise UserError(f"{key}: found {found.low:g} to {found.high:g}, which holds no value")
    return found


@dataclass(frozen=True)
class Comparison:
    """One statistic of some cells.

    label: what tells it from the claim's other comparisons. cells: selectors, by name.
    """

    label: str
    cells: Mapping[str, Mapping[str, Any]]
    combine: Combine


@dataclass(frozen=True)
class Kind:
    """A kind of claim.

    cells: the names that `cells` must have; None where any will do. settings: further keys.
    every: whether the claim asks for all of its comparisons, or for one of them.
    expand: (cells, settings, key) → the comparisons; a label tells apart those of one call.
    """

    cells: tuple[str, ...] | None
    settings: tuple[str, ...]
    every: bool
    expand: Callable[[dict[str, Any], dict[str, Any], str], list[Comparison]]


def _monotone(cells: dict[str, Any], settings: dict[str, Any], key: str) -> list[Comparison]:
    column, values = settings["over"], settings["values"]
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"{key}.values: found {values!r}, expected a list of two or more")
    if len({str(value) for value in values}) < len(values):
        raise UserError(f"{key}.values: found a value twice in {values!r}, expected each once")
    pairs = itertools.pairwise(values)
    return [
        Comparison(
            f"{column} {low} to {high}",
            {str(low): {**cells["cell"], column: low}, str(high): {**cells["cell"], column: high}},
            lambda first, second: second - first,
        )
        for low, high in pairs
    ]


def _weights_of(cells: dict[str, Any], settings: dict[str, Any], key: str) -> list[float]:
    weights = settings.get("weights")
    if weights is None:
        if len(cells) != 2:
            raise UserError(f"{key}.weights: missing, expected a number for each of {', '.join(cells)}")
        return [1.0, -1.0]
    if not isinstance(weights, dict) or weights.keys() != cells.keys():
        raise UserError(f"{key}.weights: found {weights!r}, expected a number for each of {', '.join(cells)}")
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{key}.weights.{name}: found {value!r}, expected a number")
    return [float(weights[name]) for name in cells]


def _difference(cells: dict[str, Any], settings: dict[str, Any], key: str) -> list[Comparison]:
    weights = _weights_of(cells, settings, key)

    def combine(*values: np.ndarray) -> np.ndarray:
        # Differences first, so that equal cells give exactly 0.
        return sum((w * v for w, v in zip(weights[1:], values[1:], strict=True)), weights[0] * values[0])

    return [Comparison("", cells, combine)]


def _retention(cells: dict[str, Any], settings: dict[str, Any], key: str) -> list[Comparison]:
    ordered = {name: cells[name] for name in ("kept", "whole")}
    return [Comparison("", ordered, _ratio)]


def _ratio_between(cells: dict[str, Any], settings: dict[str, Any], key: str) -> list[Comparison]:
    of = settings.get("of", "ratio")
    if of not in ("ratio", "reduction"):
        raise UserError(f"{key}.of: found {of!r}, expected ratio or reduction")
    ordered = {name: cells[name] for name in ("numerator", "denominator")}
    return [Comparison("", ordered, _ratio if of == "ratio" else _reduction)]


def _ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return first / second


def _reduction(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return 1.0 - _ratio(first, second)


def _bound(cells: dict[str, Any], settings: dict[str, Any], key: str) -> list[Comparison]:
    return [Comparison("", cells, lambda value: value)]


KINDS: dict[str, Kind] = {
    "monotone": Kind(("cell",), ("over", "values"), True, _monotone),
    "retention": Kind(("kept", "whole"), (), True, _retention),
    "difference": Kind(None, ("weights",), True, _difference),
    "ratio_between": Kind(("numerator", "denominator"), ("of",), True, _ratio_between),
    "exists": Kind(None, ("weights",), False, _difference),
    "bound": Kind(("cell",), (), True, _bound),
}
"""The tests that claims.yaml can name."""


def one_verdict(where: Region, to_hold: Interval | None, to_fail: Interval | None) -> str:
    """The verdict on one comparison: `to_hold` and `to_fail` are intervals at their own levels."""
    if to_hold is not None and where.contains(to_hold):
        return HOLDS
    if to_fail is not None and where.excludes(to_fail):
        return FAILS
    return INCONCLUSIVE


def joint_verdict(verdicts: list[str], every: bool) -> str:
    """The verdict on a claim about all of its comparisons (`every`) or about at least one."""
    decisive, other = (FAILS, HOLDS) if every else (HOLDS, FAILS)
    if decisive in verdicts:
        return decisive
    if not verdicts or NOT_RUN in verdicts:
        return NOT_RUN
    return other if all(verdict == other for verdict in verdicts) else INCONCLUSIVE
