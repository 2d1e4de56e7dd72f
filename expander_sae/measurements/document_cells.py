"""The cells that claims compare: their runs, and their metrics as functions of weights.

A cell is picked by values of the tables' run columns. Its metric is recomputed from per-document sums
under any weights, so that a ratio is a ratio in every draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from expander_sae.errors import UserError
from expander_sae.masks.supports import described
from expander_sae.measurements.index import Index
from expander_sae.measurements.tables import RUN_COLUMNS, completed
from expander_sae.study.run import CELL_COLUMNS, LEFT_OUT, Cell


@dataclass(frozen=True)
class Derived:
    """A metric that is no mean of one row's sums.

    Args:
        run: the metrics of the run whose document means `combine` takes.
        model: those of the model itself, which it takes after them.
    """

    run: tuple[str, ...]
    model: tuple[str, ...]
    combine: Callable[..., np.ndarray]


def _recovered(entropy: np.ndarray, ablated: np.ndarray, clean: np.ndarray) -> np.ndarray:
    return (ablated - entropy) / (ablated - clean)


def _explained(error: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return 1.0 - error / deviation


DERIVED: dict[str, Derived] = {
    "ce_recovered": Derived(("ce",), ("ce_zero", "ce_clean"), _recovered),
    "ce_recovered_zero_kept": Derived(("ce",), ("ce_zero_kept", "ce_clean"), _recovered),
    "ce_recovered_mean": Derived(("ce",), ("ce_mean_kept", "ce_clean"), _recovered),
    "explained_variance": Derived(("squared_error", "squared_deviation"), (), _explained),
}


@dataclass(frozen=True)
class Request:
    """What a claim asks of the tables.

    Args:
        key: where it stands in claims.yaml.
        where: values of run columns, without `seed`.
        setting: those of `where` that go without saying.
    """

    key: str
    where: Mapping[str, Any]
    metric: str
    inference: str
    split: str
    setting: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [f"{name}={value}" for name, value in self.where.items() if self.setting.get(name) != value]
        return f"{self.metric} ({self.inference}, {self.split}) of {', '.join(said)}"


@dataclass(frozen=True)
class Measured:
    """One cell's metric for some seeds.

    Args:
        parts: document sums and counts float64[D, S] of each part.
        fixed: float64[S] instead, for a metric that has no documents.
    """

    split: str
    combine: Callable[..., np.ndarray]
    parts: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    fixed: np.ndarray | None = None

    def per_seed(self, documents: Mapping[str, np.ndarray]) -> np.ndarray:
        """The metric of each seed under document weights: [R or 1, S]."""
        if self.fixed is not None:
            return self.fixed[None, :]
        weights = documents[self.split]
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.combine(*((weights @ sums) / (weights @ counts) for sums, counts in self.parts))


@dataclass(frozen=True)
class Comparable:
    """Several cells on the same seeds and, split by split, on the same documents.

    Args:
        missing: what the tables lack, in words; where there is any, `cells` is empty.
        diverged: seeds with a run in any cell that diverged under the cell's inference.
        left_out: seeds that not every cell has.
        dropped: documents that not every run was measured on.
    """

    cells: tuple[Measured, ...] = ()
    seeds: tuple[int, ...] = ()
    documents: Mapping[str, int] | None = None
    missing: tuple[str, ...] = ()
    diverged: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    dropped: int = 0


_ONLY_SEED = 0
"""Of a support that no seed changes."""

_Series = tuple[np.ndarray, np.ndarray, np.ndarray]


class Tables:
    """Look-ups in metrics.parquet and documents.parquet.

    Args:
        times: rows of speed.parquet. They are looked up like others, but their runs need not have been
            made: `measured_runs` are those of `metrics` alone.
    """

    def __init__(
        self, metrics: pd.DataFrame, documents: pd.DataFrame, times: pd.DataFrame | None = None
    ) -> None:
        metrics, documents = completed(metrics), completed(documents)
        self.measured_runs = metrics[list(RUN_COLUMNS)].drop_duplicates().reset_index(drop=True)
        self._index = Index(
            metrics if times is None else pd.concat([metrics, completed(times)], ignore_index=True)
        )
        self._numbers = documents["document"].to_numpy()
        self._sums = documents["sum"].to_numpy(float)
        self._counts = documents["count"].to_numpy(float)
        measured = [*CELL_COLUMNS, "seed", "inference", "split", "metric"]
        groups: dict[Any, Any] = documents.groupby(measured, sort=False).indices
        self._rows = {(Cell.of(key[:-4]), *key[-4:]): np.asarray(rows) for key, rows in groups.items()}

    def find(self, request: Request) -> Cell | None:
        """The cell, or None where the tables have none; in float32 unless `where` has a precision.

        Raises:
            UserError: `where` leaves a column open that the tables tell apart.
        """
        cells = self._index.matching(**LEFT_OUT | dict(request.where))
        for column in CELL_COLUMNS:
            found = {getattr(cell, column) for cell in cells}
            if len(found) > 1:
                values = ", ".join(map(str, sorted(found)))
                raise UserError(f"{request.key}: the tables hold {column} {values}; say which")
        return cells[0] if cells else None

    def compare(self, requests: Sequence[Request], leave_out_diverged: bool = False) -> Comparable:
        """The cells on the seeds and documents that they share.

        One whose support no seed changes has a single run, which stands beside every seed of the others.
        """
        found = [(request, self.find(request)) for request in requests]
        missing = tuple(str(request) for request, cell in found if not (cell and self._seeds(request, cell)))
        if missing:
            return Comparable(missing=missing)
        cells = [(request, cell) for request, cell in found if cell]
        seeded = [one for one in cells if described(one[1].support).seeded] or cells
        measured = [self._seeds(request, cell) for request, cell in seeded]
        everywhere = set.intersection(*measured)
        flagged = set().union(*(self._index.diverged(cell, request.inference) for request, cell in seeded))
        diverged = tuple(sorted(everywhere & flagged))
        seeds = sorted(everywhere.difference(diverged if leave_out_diverged else ()))
        listed = "; ".join(map(str, requests))
        if not seeds:
            why = "every shared seed diverged" if everywhere else "no seed is in every cell"
            return Comparable(missing=(f"{why}: {listed}",), diverged=diverged)
        runs = [seeds if one in seeded else [_ONLY_SEED] * len(seeds) for one in cells]
        series = [
            [self._series(request, cell, seed) for seed in of_cell]
            for (request, cell), of_cell in zip(cells, runs, strict=True)
        ]
        shared, dropped = _shared_documents(requests, series)
        if any(len(numbers) == 0 for numbers in shared.values()):
            return Comparable(missing=(f"no document is in every run: {listed}",), diverged=diverged)
        return Comparable(
            tuple(
                _by_document(request, of_cell, shared[request.split])
                if _has_documents(of_cell)
                else self._by_seed(request, cell, seeds_of_cell, of_cell)
                for (request, cell), seeds_of_cell, of_cell in zip(cells, runs, series, strict=True)
            ),
            tuple(seeds),
            {split: len(numbers) for split, numbers in shared.items()},
            diverged=diverged,
            left_out=tuple(sorted(set().union(*measured) - everywhere)),
            dropped=dropped,
        )

    def _seeds(self, request: Request, cell: Cell) -> set[int]:
        """The seeds that are measured, or not finite: the number of such a run is NaN and decides nothing."""
        listed = {
            seed
            for seed in self._index.cells[cell]
            if all(key in self._rows for key in self._document_keys(request, cell, seed))
        }
        alone = () if request.metric in DERIVED else self._values(request, cell).keys()
        return listed.union(alone, self._index.broken(cell))

    def _values(self, request: Request, cell: Cell) -> dict[int, float]:
        return self._index.values(cell, request.metric, request.inference, request.split)

    def _document_keys(self, request: Request, cell: Cell, seed: int) -> list[tuple[Any, ...]]:
        """Rows of documents.parquet from which the metric of a run is made."""
        derived = DERIVED.get(request.metric)
        if derived is None:
            return [(cell, seed, request.inference, request.split, request.metric)]
        own = replace(cell, support="none", encoder="none", n=0, d=0, k=0, steps=0, **LEFT_OUT)
        mine = [(cell, seed, request.inference, request.split, name) for name in derived.run]
        return mine + [(own, 0, "none", request.split, name) for name in derived.model]

    def _series(self, request: Request, cell: Cell, seed: int) -> list[_Series] | None:
        """(document, sum, count) of each part; none for a metric without documents; None: no number."""
        if seed in self._index.broken(cell):
            return None
        found: list[_Series] = []
        for key in self._document_keys(request, cell, seed):
            rows = self._rows.get(key)
            if rows is None:
                return []
            rows = rows[np.argsort(self._numbers[rows], kind="stable")]
            found.append((self._numbers[rows], self._sums[rows], self._counts[rows]))
        return found

    def _by_seed(
        self, request: Request, cell: Cell, seeds: Sequence[int], series: Sequence[list[_Series] | None]
    ) -> Measured:
        """A metric without documents."""
        values = self._values(request, cell)
        numbers = zip(seeds, series, strict=True)
        fixed = [math.nan if of_seed is None else values[seed] for seed, of_seed in numbers]
        return Measured(request.split, _identity, fixed=np.array(fixed))


def _by_document(request: Request, series: Sequence[list[_Series] | None], numbers: np.ndarray) -> Measured:
    """A metric on the documents `numbers`; of a run without a number all sums are NaN."""
    nothing = (numbers, np.full(len(numbers), np.nan), np.ones(len(numbers)))
    width = max(len(of_seed) for of_seed in series if of_seed is not None)
    parts = []
    for part in range(width):
        chosen = [nothing if of_seed is None else of_seed[part] for of_seed in series]
        rows = [np.searchsorted(found[0], numbers) for found in chosen]
        sums = [found[1][row] for found, row in zip(chosen, rows, strict=True)]
        counts = [found[2][row] for found, row in zip(chosen, rows, strict=True)]
        parts.append((np.stack(sums, axis=1), np.stack(counts, axis=1)))
    derived = DERIVED.get(request.metric)
    return Measured(request.split, derived.combine if derived else _identity, tuple(parts))


def _identity(value: np.ndarray) -> np.ndarray:
    return value


def _has_documents(of_cell: Sequence[list[_Series] | None]) -> bool:
    """Whether every run of a cell that has a number has it by document."""
    known = [of_seed for of_seed in of_cell if of_seed is not None]
    return bool(known) and all(known)


def _shared_documents(
    requests: Sequence[Request], series: Sequence[Sequence[list[_Series] | None]]
) -> tuple[dict[str, np.ndarray], int]:
    """Split → documents of every run; and how many others there are."""
    shared: dict[str, np.ndarray] = {}
    dropped = 0
    for split in sorted({request.split for request in requests}):
        lists = [
            part[0]
            for request, of_cell in zip(requests, series, strict=True)
            if request.split == split and _has_documents(of_cell)
            for of_seed in of_cell
            for part in of_seed or ()
        ]
        if lists:
            shared[split] = reduce(np.intersect1d, lists)
            dropped += len(np.unique(np.concatenate(lists))) - len(shared[split])
    return shared, dropped
