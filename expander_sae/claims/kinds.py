"""The kinds of claim: which cells each compares, and by which statistic."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expander_sae.errors import UserError
from expander_sae.study.run import CELL_COLUMNS

Combine = Callable[..., np.ndarray]
"""The cells' values, each [R] or [S], in the order of `Comparison.cells` → the statistic."""

Cells = Mapping[str, Mapping[str, Any]]
"""Name of a cell → values of run columns, and perhaps of metric, inference and split."""


@dataclass(frozen=True)
class Comparison:
    """One statistic of some cells; `label` tells it from the claim's other comparisons."""

    label: str
    cells: Cells
    combine: Combine


@dataclass(frozen=True)
class Kind:
    """A kind of claim, whose `cells` have these names (None for any) and which has the keys `options` beside.

    It asks for all of its comparisons (`every`) or for one. `expand` gives them by (cells, options, key); a
    label tells apart those of one call.
    """

    cells: tuple[str, ...] | None
    options: tuple[str, ...]
    every: bool
    expand: Callable[[Cells, dict[str, Any], str], list[Comparison]]


def _monotone(cells: Cells, options: dict[str, Any], key: str) -> list[Comparison]:
    column, values = options.get("over"), options.get("values")
    if column not in CELL_COLUMNS:
        raise UserError(f"{key}.over: found {column!r}, expected one of {', '.join(CELL_COLUMNS)}")
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"{key}.values: found {values!r}, expected a list of two or more")
    if len({str(value) for value in values}) < len(values):
        raise UserError(f"{key}.values: found a value twice in {values!r}, expected each once")
    return [
        Comparison(
            f"{column} {low} to {high}",
            {str(value): {**cells["cell"], column: value} for value in (low, high)},
            lambda first, second: second - first,
        )
        for low, high in itertools.pairwise(values)
    ]


def _weights_of(cells: Cells, weights: Any, key: str) -> list[float]:
    expected = f"expected a number for each of {', '.join(cells)}"
    if weights is None:
        if len(cells) != 2:
            raise UserError(f"{key}.weights: missing, {expected}")
        return [1.0, -1.0]
    if weights.keys() != cells.keys():
        raise UserError(f"{key}.weights: found {weights!r}, {expected}")
    return [float(weights[name]) for name in cells]


def _difference(cells: Cells, options: dict[str, Any], key: str) -> list[Comparison]:
    weights = _weights_of(cells, options.get("weights"), key)

    def combine(*values: np.ndarray) -> np.ndarray:
        # Differences first, so that equal cells give exactly 0.
        return sum((w * v for w, v in zip(weights[1:], values[1:], strict=True)), weights[0] * values[0])

    return [Comparison("", cells, combine)]


def _ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return first / second


def _retention(cells: Cells, options: dict[str, Any], key: str) -> list[Comparison]:
    return [Comparison("", {name: cells[name] for name in ("kept", "whole")}, _ratio)]


def _ratio_between(cells: Cells, options: dict[str, Any], key: str) -> list[Comparison]:
    ordered = {name: cells[name] for name in ("numerator", "denominator")}
    reduction = options.get("of") == "reduction"
    return [Comparison("", ordered, (lambda *both: 1.0 - _ratio(*both)) if reduction else _ratio)]


def _bound(cells: Cells, options: dict[str, Any], key: str) -> list[Comparison]:
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
