"""Which cells the frontier shows, as series over learned decoder values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from expander_sae.masks.supports import on_frontier
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import INFERENCES
from expander_sae.measurements.view import View
from expander_sae.study.run import Cell

_ENCODERS = ("tied", "warm_tied", "independent")


@dataclass(frozen=True)
class Point:
    """An estimate of one cell at its stored size, in learned decoder values."""

    cell: Cell
    stored: float
    estimate: Estimate


@dataclass(frozen=True)
class Series:
    """Points of one role, encoder and inference, by stored size.

    Args:
        role: the support, or ``small_dense`` for a dense dictionary of fewer features than the view's.
    """

    role: str
    encoder: str
    inference: str
    points: tuple[Point, ...]


def measured_series(view: View, metric: str, one_n: bool) -> list[Series]:
    """The series of one metric, in drawing order. one_n: no other view differs in n alone."""
    found: dict[tuple[str, str, str], list[Point]] = {}
    for cell in shown_cells(view, one_n):
        for inference in INFERENCES:
            estimate = view.index.estimate(cell, metric, inference)
            if estimate.asked:
                key = (role_of(cell, view), cell.encoder, inference)
                found.setdefault(key, []).append(Point(cell, _stored(cell, view), estimate))
    return _series(found)


def published_series(view: View, metric: str, roles: set[str]) -> list[Series]:
    """The published means that stand beside a view: same model, layer, m and k, at the published budget.

    Only roles of the frontier that are shown, sparse ones of the same n. Of each role the tied encoder is
    taken where it was published, as in our sparse runs, otherwise the next one.
    """
    found: dict[tuple[str, str, str], list[Point]] = {}
    for inference in INFERENCES:
        for cell, mean in view.near(metric, inference):
            role = role_of(cell, view)
            sized = role == "small_dense" or cell.n == view.place.n
            if sized and role in roles and role in on_frontier() and cell.encoder in _ENCODERS:
                point = Point(cell, float(cell.n * cell.d), mean.estimate)
                found.setdefault((role, cell.encoder, inference), []).append(point)
    first = {role: min(_order(key)[2] for key in found if key[0] == role) for role, _, _ in found}
    return _series({key: points for key, points in found.items() if _order(key)[2] == first[key[0]]})


def shown_cells(view: View, one_n: bool, **where: Any) -> list[Cell]:
    """Cells of the view's budget and k that belong on its frontier.

    Dense cells of fewer features do; where others differ in n alone (not `one_n`), only those that match
    the storage of one of its d: by decoder, or, with an encoder of their own, in total. Of a sparse support
    only the tied encoder is kept where it was run: the frontier is of decoders, and other encoders have a
    figure of their own. `where` as in `View.matching`.
    """
    cells = view.matching(**where)
    sparse = [cell for cell in cells if cell.support != "dense"]
    tied = {cell.support for cell in sparse if cell.encoder == "tied"}
    sparse = [cell for cell in sparse if cell.encoder == "tied" or cell.support not in tied]
    m, n = view.place.m, view.place.n
    by_decoder, in_total = ({cell.d * n // (parts * m) for cell in sparse} for parts in (1, 2))

    def belongs(cell: Cell) -> bool:
        matched = cell.n in by_decoder or (cell.encoder != "tied" and cell.n in in_total)
        return cell.n == n or (cell.n < n and (one_n or matched))

    return [*sparse, *(cell for cell in cells if cell.support == "dense" and belongs(cell))]


def role_of(cell: Cell, view: View) -> str:
    """Its support; a dense dictionary of fewer features than the view's is a role of its own."""
    return "small_dense" if cell.support == "dense" and cell.n < view.place.n else cell.support


def _stored(cell: Cell, view: View) -> float:
    """The decoder values that were counted, which a Bernoulli mask draws; those of the least seed."""
    counted = view.index.values(cell, "decoder_values", "none", "none")
    finite = [value for _, value in sorted(counted.items()) if math.isfinite(value)]
    return finite[0] if finite else float(cell.n * cell.d)


def _series(found: dict[tuple[str, str, str], list[Point]]) -> list[Series]:
    ordered = {key: sorted(points, key=lambda one: (one.stored, one.cell.n, one.cell.d))
               for key, points in found.items()}  # fmt: skip
    return [Series(*key, tuple(ordered[key])) for key in sorted(ordered, key=_order)]


def _order(key: tuple[str, str, str]) -> tuple[int, str, int, int]:
    """Of (role, encoder, inference): the expander first, the dense dictionary last, newcomers after it."""
    role, encoder, inference = key
    known = on_frontier()
    return (
        known.index(role) if role in known else len(known), role,
        _ENCODERS.index(encoder) if encoder in _ENCODERS else len(_ENCODERS), INFERENCES.index(inference),
    )  # fmt: skip


def in_drawing_order(series: list[Series]) -> list[Series]:
    """The expander first, the dense dictionary last, newcomers after it."""
    return sorted(series, key=lambda one: _order((one.role, one.encoder, one.inference)))
