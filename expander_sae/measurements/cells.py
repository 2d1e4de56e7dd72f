"""The tidy table as figures and tables ask for it: one cell's metric over its seeds.

A place is a model, corpus, layer, recipe and size of dictionary. Its budget is the pair of training
tokens and steps with most sparse runs, its k the one with most runs; other budgets and k are asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd
from scipy.stats import t as student_t


class Run(NamedTuple):
    """What the seeds of a cell share: the run columns without the seed."""

    model: str
    corpus: str
    layer: int
    recipe: str
    support: str
    encoder: str
    m: int
    n: int
    d: int
    k: int
    train_tokens: int
    steps: int


def half_interval(values: Iterable[float]) -> float:
    """Half the 95 % interval of the mean, t(0.975, s−1)·sd/√s over s seeds; NaN below two seeds."""
    values = list(values)
    size = len(values)
    if size < 2:
        return math.nan
    mean = sum(values) / size
    variance = sum((value - mean) ** 2 for value in values) / (size - 1)
    return float(student_t.ppf(0.975, size - 1)) * math.sqrt(variance / size)


@dataclass(frozen=True)
class Cell:
    """A metric of one cell: seed → finite value of each seed that did not diverge.

    asked: seeds that were run. diverged: how many of them diverged and are in no mean.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    asked: int = 0
    diverged: int = 0

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN where there is none."""
        return sum(self.values.values()) / len(self.values) if self.values else math.nan

    @property
    def half(self) -> float:
        """Half the 95 % interval of the mean over seeds."""
        return half_interval(self.values.values())

    def paired(self, other: Cell, combine: Any) -> Cell:
        """`combine` of both, seed by seed, on the seeds that both have."""
        shared = sorted(self.values.keys() & other.values.keys())
        return Cell({seed: combine(self.values[seed], other.values[seed]) for seed in shared}, len(shared))

    def less(self, other: Cell) -> Cell:
        """The paired difference self − other."""
        return self.paired(other, lambda mine, its: mine - its)

    def share_of(self, other: Cell) -> Cell:
        """The paired ratio self/other."""
        return self.paired(other, lambda mine, its: mine / its if its else math.nan)


@dataclass(frozen=True, order=True)
class Place:
    """Where runs can be compared. `n`: features of its sparse runs."""

    model: str
    corpus: str
    layer: int
    recipe: str
    m: int
    n: int

    def __str__(self) -> str:
        return f"{self.model}, layer {self.layer}, {self.corpus}, recipe {self.recipe}, n = {self.n:,}"


class Book:
    """Look-ups in a table of measurements."""

    def __init__(self, metrics: pd.DataFrame) -> None:
        columns = [*Run._fields, "seed", "inference", "split", "metric", "value"]
        self._values: dict[tuple[Run, str, str, str], dict[int, float]] = {}
        self._diverged: dict[tuple[Run, str], set[int]] = {}
        measured: dict[Run, set[int]] = {}
        self.runs: dict[Run, set[int]] = {}
        for row in metrics[columns].itertuples(index=False, name=None):
            run, (seed, inference, split, metric, value) = Run(*row[: len(Run._fields)]), row[-5:]
            self._values.setdefault((run, inference, split, metric), {})[int(seed)] = float(value)
            if run.support != "none" and run.encoder != "none":
                self.runs.setdefault(run, set()).add(int(seed))
            if metric == "diverged" and not value <= 0:
                self._diverged.setdefault((run, inference), set()).add(int(seed))
            elif metric != "diverged" and split != "none":
                measured.setdefault(run, set()).add(int(seed))
        # Of a run that is not finite, nothing was measured but what it stores.
        self._broken = {
            run: self._diverged.get((run, "encoder"), set()) - measured.get(run, set()) for run in self.runs
        }

    def cell(self, run: Run, metric: str, inference: str, split: str) -> Cell:
        """The seeds of a run and metric; an empty cell where nothing was measured.

        A seed that the encoder diverged on is left out of every inference, one that a pursuit diverged on
        of that pursuit alone. A run that is not finite counts as asked for and diverged.
        """
        found = self._values.get((run, inference, split, metric))
        if found is None:
            return Cell()
        lost = self._diverged.get((run, "encoder"), set()) | self._diverged.get((run, inference), set())
        kept = {
            seed: value for seed, value in sorted(found.items()) if seed not in lost and math.isfinite(value)
        }
        broken = self._broken.get(run, set()) - found.keys()
        return Cell(kept, len(found) + len(broken), len(lost & found.keys()) + len(broken))

    @cached_property
    def places(self) -> list[Place]:
        """Every place with sparse runs (or, where there is none, with dense ones), the largest first."""
        sparse = {run: seeds for run, seeds in self.runs.items() if run.support != "dense"} or self.runs
        counts: Counter[Place] = Counter()
        for run, seeds in sparse.items():
            counts[Place(run.model, run.corpus, run.layer, run.recipe, run.m, run.n)] += len(seeds)
        return sorted(counts, key=lambda place: (-counts[place], place))

    @cached_property
    def views(self) -> list[View]:
        """A view of each place."""
        return [View(self, place) for place in self.places]


class View:
    """One place of a table, at its main budget and k unless asked otherwise."""

    def __init__(self, book: Book, place: Place) -> None:
        self.book, self.place = book, place
        self.runs = [
            run
            for run in book.runs
            if (run.model, run.corpus, run.layer, run.recipe, run.m)
            == (place.model, place.corpus, place.layer, place.recipe, place.m)
            and (run.n == place.n or run.support == "dense")
        ]
        sparse = [run for run in self.runs if run.support != "dense"] or self.runs
        budgets: Counter[tuple[int, int]] = Counter()
        for run in sparse:
            budgets[run.train_tokens, run.steps] += len(book.runs[run])
        self.tokens, self.steps = max(budgets, key=lambda budget: (budgets[budget], budget))
        ks: Counter[int] = Counter()
        for run in sparse:
            if (run.train_tokens, run.steps) == (self.tokens, self.steps):
                ks[run.k] += len(book.runs[run])
        self.k = max(ks, key=lambda k: (ks[k], k == 64, k))

    def cell(
        self,
        metric: str,
        support: str,
        d: int | None = None,
        *,
        k: int | None = None,
        n: int | None = None,
        encoder: str = "tied",
        inference: str = "encoder",
        split: str | None = None,
        tokens: int | None = None,
        steps: int | None = None,
    ) -> Cell:
        """The seeds of one cell. Dense runs have d = m; `split` follows from the metric's name."""
        place = self.place
        run = Run(
            place.model, place.corpus, place.layer, place.recipe, support, encoder, place.m,
            place.n if n is None else n, place.m if d is None or support == "dense" else d,
            self.k if k is None else k, self.tokens if tokens is None else tokens,
            self.steps if steps is None else steps,
        )  # fmt: skip
        where = split or ("ce" if metric.startswith("ce") else "test")
        return self.book.cell(run, metric, inference, where)

    def values(self, column: str, **where: Any) -> list[Any]:
        """Sorted values of a run column among the runs that match `where`."""
        return sorted({getattr(run, column) for run in self.matching(**where)})

    def matching(self, **where: Any) -> list[Run]:
        """The runs of the main budget and k (or those that `where` names; None: any)."""
        wanted = {"train_tokens": self.tokens, "steps": self.steps, "k": self.k, **where}
        wanted = {column: value for column, value in wanted.items() if value is not None}
        return [
            run for run in self.runs if all(getattr(run, column) == value for column, value in wanted.items())
        ]

    def ds(self, support: str = "expander", **where: Any) -> list[int]:
        """The d of a support."""
        return self.values("d", support=support, **{"encoder": "tied", **where})

    def supports(self, **where: Any) -> list[str]:
        """The sparse supports of tied runs: the expander first, then known ones, then others."""
        found = {run.support for run in self.matching(**{"encoder": "tied", **where})} - {"dense"}
        return sorted(found, key=support_order)

    def __str__(self) -> str:
        return (
            f"{self.place.model}, layer {self.place.layer}; m = {self.place.m:,}, n = {self.place.n:,}, "
            f"k = {self.k}; {self.tokens:,} tokens of {self.place.corpus}, {self.steps:,} steps, "
            f"recipe “{self.place.recipe}”"
        )


_ORDER = (
    *["expander", "right_regular", "girth6", "min_overlap", "bernoulli"],
    *["clustered_cover", "clustered", "pruned_retuned", "small_dense", "dense"],
)


def support_order(support: str) -> tuple[int, int, str]:
    """Sort key of supports; doses by their number."""
    if support in _ORDER:
        return _ORDER.index(support), 0, support
    number = support.removeprefix("dose")
    return len(_ORDER), int(number) if number.isdigit() else 0, support
