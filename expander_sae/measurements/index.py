"""Every value of metrics.parquet by what was measured, and the one rule of runs that diverged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pandas as pd

from expander_sae.masks.supports import described
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.tables import completed
from expander_sae.model.precisions import FLOAT32, RUN_PRECISIONS
from expander_sae.pursuit.inference import ENCODER
from expander_sae.study.run import CELL_COLUMNS, Cell


def default_split(metric: str) -> str:
    """Where a metric is measured unless somebody asks for another split."""
    return "ce" if metric.startswith("ce") else "test"


class Index:
    """Look-ups in a table of measurements.

    cells: the seeds of every cell. inferences, metrics, supports: all that occur.

    A seed that the encoder diverged on is left out of every inference, one that a pursuit diverged on of
    that pursuit alone: what a pursuit does says nothing of what the encoder found.
    """

    def __init__(self, metrics: pd.DataFrame) -> None:
        self.cells: dict[Cell, set[int]] = {}
        self._values: dict[tuple[Cell, str, str, str], dict[int, float]] = {}
        self._flagged: dict[tuple[Cell, str], set[int]] = {}
        self._measured: dict[Cell, set[int]] = {}
        columns = [*CELL_COLUMNS, "seed", "inference", "split", "metric", "value"]
        for row in completed(metrics)[columns].itertuples(index=False, name=None):
            cell, (seed, inference, split, metric, value) = Cell.of(row[:-5]), row[-5:]
            self.cells.setdefault(cell, set()).add(seed)
            self._values.setdefault((cell, inference, split, metric), {})[int(seed)] = float(value)
            if metric == "diverged":
                if not value <= 0:
                    self._flagged.setdefault((cell, inference), set()).add(seed)
            elif split != "none":
                self._measured.setdefault(cell, set()).add(seed)
        self.inferences = {inference for _, inference, _, _ in self._values}
        self.metrics = {metric for *_, metric in self._values}
        self.supports = {cell.support for cell in self.cells}

    def __iter__(self) -> Iterator[tuple[Cell, str, str, str]]:
        """Everything that was measured: cell, inference, split and metric."""
        return iter(self._values)

    @cached_property
    def trained(self) -> dict[Cell, set[int]]:
        """The seeds of every trained autoencoder: no rows about a model itself, none of planted codes."""
        return {
            cell: seeds for cell, seeds in self.cells.items() if "none" not in (cell.support, cell.encoder)
        }

    @cached_property
    def _own(self) -> list[Cell]:
        """The cells that the study made: what it imports comes in a precision that nobody chose for it."""
        own = [cell for cell in self.trained if not described(cell.support).imported]
        return own or list(self.trained)

    @cached_property
    def precision(self) -> str:
        """What figures show that tell no precisions apart: float32, where there is any."""
        found = {cell.precision for cell in self._own}
        return FLOAT32 if FLOAT32 in found or not found else min(found, key=RUN_PRECISIONS.index)

    @cached_property
    def codes(self) -> str:
        """What figures show that do not tell codes of training apart: the encoder's, where there are any."""
        found = {cell.codes for cell in self._own}
        return ENCODER if ENCODER in found or not found else min(found)

    def values(
        self, cell: Cell, metric: str, inference: str = "encoder", split: str | None = None
    ) -> dict[int, float]:
        """Seed → value of every run that has one, diverged or not."""
        return self._values.get((cell, inference, split or default_split(metric), metric), {})

    def diverged(self, cell: Cell, inference: str) -> set[int]:
        """The seeds that diverged under an inference or already under the encoder."""
        return self._flagged.get((cell, "encoder"), set()) | self._flagged.get((cell, inference), set())

    def broken(self, cell: Cell) -> set[int]:
        """The seeds with a parameter that is not finite: nothing was measured of them but what they store."""
        flagged = (seeds for (one, _), seeds in self._flagged.items() if one == cell)
        return set().union(*flagged) - self._measured.get(cell, set())

    def estimate(
        self, cell: Cell, metric: str, inference: str = "encoder", split: str | None = None
    ) -> Estimate:
        """A metric over the seeds of a cell; empty where it was measured for none.

        A seed that diverged counts as asked for and diverged, whether its numbers are absurd or not finite,
        of which a table has no row.
        """
        found = self.values(cell, metric, inference, split)
        if not found:
            return Estimate()
        lost = self.diverged(cell, inference)
        kept = {s: value for s, value in sorted(found.items()) if s not in lost and math.isfinite(value)}
        return Estimate(kept, len(lost | found.keys()), len(lost))

    def matching(self, **where: Any) -> list[Cell]:
        """The cells with these values of their columns."""
        return [cell for cell in self.cells if all(getattr(cell, name) == v for name, v in where.items())]
