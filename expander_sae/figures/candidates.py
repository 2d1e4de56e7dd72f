"""Everything that a user could take at one place: each dictionary, read in one way, with its bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from expander_sae.figures.frontier_series import role_of, shown_cells
from expander_sae.masks.supports import described
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.pareto import Option
from expander_sae.measurements.results import INFERENCES
from expander_sae.measurements.view import View
from expander_sae.study.run import Cell

CE, ERROR, SELECTIVITY = "ce_recovered", "relative_error", "selectivity"
METRICS = (CE, ERROR, SELECTIVITY)
BYTES, ID_BYTES = "storage_total_bytes", "storage_ids_total_bytes"
Group = Literal["trained", "imported", "untrained", "frozen"]
GROUPS: tuple[Group, ...] = ("trained", "imported", "untrained", "frozen")


@dataclass(frozen=True)
class Candidate:
    """A cell as it is stored, read by one inference.

    Args:
        role: its support, or ``small_dense`` for a dense dictionary of fewer features than the place's.
        size: bytes on disk, mean over seeds.
        by_ids: `size` is that of the token ids that its columns can be made from again, where the language
            model is at hand.
        estimates: metric → its values over seeds; of a metric with an interval over documents with that.
    """

    cell: Cell
    role: str
    precision: str
    inference: str
    size: float
    by_ids: bool = False
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def group(self) -> Group:
        """Frozen is a floor that was trained in part, such as a random decoder with a trained encoder.

        Imported is of a k and a training of its own, so that it stands beside what the study trained.
        """
        if described(self.cell.support).imported:
            return "imported"
        if not described(self.cell.support).floor:
            return "trained"
        return "frozen" if self.cell.steps else "untrained"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from every other, to be sorted by."""
        return self.cell, self.precision, self.inference, self.by_ids

    def mean(self, metric: str) -> float:
        """A metric's mean over seeds; NaN where it was not measured."""
        return self.estimates.get(metric, Estimate()).mean

    def half(self, metric: str) -> float:
        """Half its 95 % interval; NaN where it is not known."""
        return self.estimates.get(metric, Estimate()).half

    def option(self, metric: str) -> Option:
        """As something to be chosen by a metric; of an error less is more."""
        sign = -1.0 if metric == ERROR else 1.0
        return Option(self.size, sign * self.mean(metric), self.half(metric), self.key)


def candidates(view: View) -> list[Candidate]:
    """All of a view that have bytes and at least one of `METRICS`, by group: the trained ones first."""
    found: dict[tuple[Any, ...], Candidate] = {}
    cells = shown_cells(view, one_n=True, precision=None, codes=None)
    for cell in [*cells, *view.imports(), *floor_cells(view)]:
        for one in _read(view, cell):
            found[one.key] = one
    return sorted(found.values(), key=lambda one: (GROUPS.index(one.group), one.key))


def floor_cells(view: View) -> list[Cell]:
    """The untrained cells of a view's place, whatever their n and d.

    Fewer than k principal components have all of them active; each is two features, one with each sign.
    """
    place = view.place
    return [
        cell
        for cell in view.index.trained
        if described(cell.support).floor
        and cell.steps == 0
        and (cell.model, cell.corpus, cell.layer, cell.recipe, cell.m, cell.train_tokens)
        == (place.model, place.corpus, place.layer, place.recipe, place.m, view.train_tokens)
        and (cell.k == view.k or (cell.k < view.k and cell.n <= 2 * cell.k))
    ]


def _read(view: View, cell: Cell) -> Iterator[Candidate]:
    for name, by_ids in ((BYTES, False), (ID_BYTES, True)):
        size = view.index.estimate(cell, name, "none", "none").mean
        if not size > 0:
            continue
        for inference in INFERENCES:
            estimates = {name: _estimate(view, cell, name, inference) for name in METRICS}
            measured = {name: estimate for name, estimate in estimates.items() if estimate}
            if measured:
                yield Candidate(cell, role_of(cell, view), cell.precision, inference, size, by_ids, measured)


def _estimate(view: View, cell: Cell, metric: str, inference: str) -> Estimate:
    """With the interval over documents of a metric that has `_low` and `_high`."""
    found, low, high = (
        view.index.estimate(cell, f"{metric}{end}", inference) for end in ("", "_low", "_high")
    )
    documents = (high.mean - low.mean) / 2
    return replace(found, documents=documents) if found and math.isfinite(documents) else found
