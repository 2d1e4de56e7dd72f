"""The cells that claims compare: their runs, and their metrics as functions of weights.

A cell is the seeds of one setting, picked by values of the tables' run columns. Its metric is
recomputed from per-document sums under any weights, so that a ratio is a ratio in every draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from expander_sae.errors import UserError
from expander_sae.measurements.tables import RUN_COLUMNS

RunKey = tuple[Any, ...]
"""A run's values of RUN_COLUMNS."""

_COLUMNS = list(RUN_COLUMNS)
_OF_MODEL = ("model", "corpus", "layer", "recipe", "train_tokens")


@dataclass(frozen=True)
class Derived:
    """A metric that is no mean of one row's sums.

    run, model: the metrics of the run and of the model itself whose document means `combine` takes.
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


def default_split(metric: str) -> str:
    """Where a metric is measured unless a claim says otherwise."""
    return "ce" if metric.startswith("ce") else "test"


@dataclass(frozen=True)
class Request:
    """What a claim asks of the tables.

    where: values of run columns, without `seed`. key: where it stands in claims.yaml.
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

    parts: document sums and counts float64[D, S] of each part. fixed: float64[S] instead, for a
    metric that has no documents.
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

    missing: what the tables lack, in words; where there is any, `cells` is empty.
    diverged: seeds with a run in any cell that diverged under the cell's inference. left_out: seeds that
    not every cell has.
    dropped: documents that not every run was measured on.
    """

    cells: tuple[Measured, ...] = ()
    seeds: tuple[int, ...] = ()
    documents: Mapping[str, int] | None = None
    missing: tuple[str, ...] = ()
    diverged: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    dropped: int = 0


_Series = tuple[np.ndarray, np.ndarray, np.ndarray]


class Tables:
    """Look-ups in metrics.parquet and documents.parquet."""

    def __init__(
        self, metrics: pd.DataFrame, documents: pd.DataFrame, times: pd.DataFrame | None = None
    ) -> None:
        """times: rows of speed.parquet. They are looked up like others, but their runs need not have been
        made: `measured_runs` are those of `metrics` alone."""
        self.measured_runs = metrics[_COLUMNS].drop_duplicates().reset_index(drop=True)
        if times is not None:
            metrics = pd.concat([metrics, times], ignore_index=True)
        self.runs = metrics[_COLUMNS].drop_duplicates().reset_index(drop=True)
        measured = [*_COLUMNS, "inference", "split", "metric"]
        keys = metrics[measured].itertuples(index=False, name=None)
        self._values = dict(zip(keys, metrics["value"].to_numpy(float), strict=True))
        # (run, inference): a pursuit that diverges says nothing of what the encoder found.
        self._diverged = {
            (key[: len(_COLUMNS)], key[-3])
            for key, value in self._values.items()
            if key[-1] == "diverged" and not value <= 0
        }
        # Of a run that is not finite, nothing was measured but what it stores, split none.
        found = {key[: len(_COLUMNS)] for key in self._values if key[-1] != "diverged" and key[-2] != "none"}
        self._broken = {run for run, _ in self._diverged} - found
        self._numbers = documents["document"].to_numpy()
        self._sums = documents["sum"].to_numpy(float)
        self._counts = documents["count"].to_numpy(float)
        groups = documents.groupby(measured, sort=False).indices
        self._rows: dict[Any, np.ndarray] = {key: np.asarray(rows) for key, rows in groups.items()}

    def find(self, request: Request) -> dict[int, RunKey]:
        """Seed → run; `UserError` where `where` leaves a column open that the tables tell apart."""
        chosen = pd.Series(True, index=self.runs.index)
        for column, value in request.where.items():
            chosen &= self.runs[column] == value
        rows = self.runs[chosen]
        for column in _COLUMNS:
            found = rows[column].unique()
            if column != "seed" and len(found) > 1:
                values = ", ".join(str(value) for value in sorted(found))
                raise UserError(f"{request.key}: the tables hold {column} {values}; say which")
        return {int(key[-1]): key for key in rows.itertuples(index=False, name=None)}

    def compare(self, requests: Sequence[Request], leave_out_diverged: bool = False) -> Comparable:
        """The cells on the seeds and documents that they share."""
        runs = [self._measured_runs(request) for request in requests]
        missing = tuple(str(request) for request, found in zip(requests, runs, strict=True) if not found)
        if missing:
            return Comparable(missing=missing)
        everywhere = set.intersection(*(set(found) for found in runs))
        anywhere = set.union(*(set(found) for found in runs))
        diverged = sorted(
            seed
            for seed in everywhere
            if any(
                self._has_diverged(found[seed], request.inference)
                for request, found in zip(requests, runs, strict=True)
            )
        )
        seeds = sorted(everywhere.difference(diverged if leave_out_diverged else ()))
        if not seeds:
            why = "every shared seed diverged" if everywhere else "no seed is in every cell"
            listed = "; ".join(str(request) for request in requests)
            return Comparable(missing=(f"{why}: {listed}",), diverged=tuple(diverged))
        series = [
            [self._series(request, found[seed]) for seed in seeds]
            for request, found in zip(requests, runs, strict=True)
        ]
        shared, dropped = _shared_documents(requests, series)
        if any(len(numbers) == 0 for numbers in shared.values()):
            listed = "; ".join(str(request) for request in requests)
            return Comparable(missing=(f"no document is in every run: {listed}",), diverged=tuple(diverged))
        cells = tuple(
            self._cell(request, [found[seed] for seed in seeds], of_cell, shared)
            for request, found, of_cell in zip(requests, runs, series, strict=True)
        )
        return Comparable(
            cells,
            tuple(seeds),
            {split: len(numbers) for split, numbers in shared.items()},
            diverged=tuple(diverged),
            left_out=tuple(sorted(anywhere - everywhere)),
            dropped=dropped,
        )

    def _has_diverged(self, run: RunKey, inference: str) -> bool:
        """By its own flag or the encoder's: what the encoder diverges on is diverged for all others."""
        return (run, inference) in self._diverged or (run, "encoder") in self._diverged

    def _measured_runs(self, request: Request) -> dict[int, RunKey]:
        """Seed → run that is measured, or that is not finite: its number is NaN and decides nothing."""
        found = self.find(request)
        measured = {seed: run for seed, run in found.items() if self._is_measured(request, run)}
        broken = {seed: run for seed, run in found.items() if run in self._broken}
        return measured | broken

    def _is_measured(self, request: Request, run: RunKey) -> bool:
        keys = self._document_keys(request, run)
        if all(key in self._rows for key in keys):
            return True
        return request.metric not in DERIVED and self._value_key(request, run) in self._values

    def _value_key(self, request: Request, run: RunKey) -> tuple[Any, ...]:
        return (*run, request.inference, request.split, request.metric)

    def _document_keys(self, request: Request, run: RunKey) -> list[tuple[Any, ...]]:
        """Rows of documents.parquet from which the metric of a run is made."""
        derived = DERIVED.get(request.metric)
        if derived is None:
            return [self._value_key(request, run)]
        values = dict(zip(_COLUMNS, run, strict=True))
        model = tuple(
            values[name] if name in (*_OF_MODEL, "m") else ("none" if name in ("support", "encoder") else 0)
            for name in _COLUMNS
        )
        mine = [(*run, request.inference, request.split, name) for name in derived.run]
        return mine + [(*model, "none", request.split, name) for name in derived.model]

    def _series(self, request: Request, run: RunKey) -> list[_Series] | None:
        """(document, sum, count) of each part; none for a metric without documents; None: no number."""
        found: list[_Series] = []
        if run in self._broken:
            return None
        for key in self._document_keys(request, run):
            rows = self._rows.get(key)
            if rows is None:
                return []
            rows = rows[np.argsort(self._numbers[rows], kind="stable")]
            found.append((self._numbers[rows], self._sums[rows], self._counts[rows]))
        return found

    def _cell(
        self,
        request: Request,
        runs: list[RunKey],
        series: list[list[_Series] | None],
        shared: Mapping[str, np.ndarray],
    ) -> Measured:
        derived = DERIVED.get(request.metric)
        if not _has_documents(series):
            keys = [self._value_key(request, run) for run in runs]
            fixed = [
                self._values[key] if of_seed is not None else math.nan
                for key, of_seed in zip(keys, series, strict=True)
            ]
            return Measured(request.split, _identity, fixed=np.array(fixed))
        numbers = shared[request.split]
        nothing = (numbers, np.full(len(numbers), np.nan), np.ones(len(numbers)))
        width = max(len(of_seed) for of_seed in series if of_seed is not None)
        parts = []
        for part in range(width):
            chosen = [nothing if of_seed is None else of_seed[part] for of_seed in series]
            rows = [np.searchsorted(found[0], numbers) for found in chosen]
            sums = [found[1][row] for found, row in zip(chosen, rows, strict=True)]
            counts = [found[2][row] for found, row in zip(chosen, rows, strict=True)]
            parts.append((np.stack(sums, axis=1), np.stack(counts, axis=1)))
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
