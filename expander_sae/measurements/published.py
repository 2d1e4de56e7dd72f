"""The published figures, looked up beside ours; only where model, layer and sizes are the same."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from expander_sae.measurements.estimate import Estimate, student
from expander_sae.study.run import CELL_COLUMNS, LEFT_OUT, Cell

TOKENS = 200_000
"""Training tokens of the published runs, but those of the data-efficiency experiment."""

COLUMNS = (
    *["model", "layer", "support", "encoder", "m", "n", "d", "k", "train_tokens"],
    *["inference", "metric", "mean", "seeds"],
)
"""What resources/paper_figures.csv must hold."""


@dataclass(frozen=True)
class PublishedMean:
    """A published mean over `seeds`; false where nothing was published.

    Args:
        sd: the population's; NaN where it was not published.
    """

    mean: float = math.nan
    sd: float = math.nan
    seeds: int = 0

    def __bool__(self) -> bool:
        return self.seeds > 0

    @property
    def half(self) -> float:
        """Half the 95 % interval of the mean: t·sd/√(s − 1), since sd divides by s."""
        if self.seeds < 2 or not math.isfinite(self.sd):
            return math.nan
        return student(0.975, self.seeds - 1) * self.sd / math.sqrt(self.seeds - 1)

    @property
    def estimate(self) -> Estimate:
        """With one value, the mean, to be drawn."""
        return Estimate({0: self.mean}, self.seeds) if self else Estimate()


class Published:
    """Look-ups in resources/paper_figures.csv."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._means: dict[tuple[Cell, str, str], PublishedMean] = {}
        for row in frame.to_dict("records"):
            if math.isfinite(row["mean"]):
                columns: dict[str, Any] = {name: row.get(name, LEFT_OUT.get(name)) for name in CELL_COLUMNS}
                cell = _told_apart(Cell(**columns))
                mean = PublishedMean(float(row["mean"]), float(row.get("sd", math.nan)), int(row["seeds"]))
                self._means.setdefault((cell, row["inference"], row["metric"]), mean)
        self._models = {(cell.model, cell.layer) for cell, _, _ in self._means}

    def mean(self, cell: Cell, metric: str, inference: str = "encoder") -> PublishedMean:
        """What was published of a cell."""
        return self._means.get((_told_apart(cell), inference, metric), PublishedMean())

    def cells(self, cell: Cell, metric: str, inference: str) -> Iterator[tuple[Cell, PublishedMean]]:
        """What was published of dictionaries of the model, layer, m, k and training tokens of `cell`."""
        wanted = _alike(_told_apart(cell))
        for (one, by, of), mean in self._means.items():
            if (by, of) == (inference, metric) and _alike(one) == wanted:
                yield one, mean

    def knows(self, model: str, layer: int) -> bool:
        """Whether anything was published of this model and layer."""
        return (_plain(model), layer) in self._models


def _told_apart(cell: Cell) -> Cell:
    """By what published cells are told apart: corpus, recipe and steps are the paper's own."""
    return replace(cell, model=_plain(cell.model), corpus="", recipe="", steps=0)


def _alike(cell: Cell) -> tuple[str, int, int, int, int]:
    return cell.model, cell.layer, cell.m, cell.k, cell.train_tokens


def _plain(model: str) -> str:
    """The name without the six hex digits that changed settings append."""
    return re.sub(r"-[0-9a-f]{6}$", "", model).lower()
