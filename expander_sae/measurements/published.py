"""The published figures, looked up beside ours; only where model, layer and sizes are the same."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.stats import t as student_t

from expander_sae.measurements.cells import Cell, View

TOKENS = 200_000
"""Training tokens of the published runs, but those of the data-efficiency experiment."""


@dataclass(frozen=True)
class Value:
    """A published mean over `seeds`; `sd` is the population's, NaN where it was not published."""

    mean: float
    sd: float
    seeds: int

    @property
    def half(self) -> float:
        """Half the 95 % interval of the mean: t·sd/√(s − 1), since sd divides by s."""
        if self.seeds < 2 or not math.isfinite(self.sd):
            return math.nan
        return float(student_t.ppf(0.975, self.seeds - 1)) * self.sd / math.sqrt(self.seeds - 1)

    @property
    def cell(self) -> Cell:
        """As a cell with one value, to be drawn."""
        return Cell({0: self.mean}, self.seeds)


class Published:
    """Look-ups in resources/paper_figures.csv."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._values: dict[tuple[object, ...], Value] = {}
        for row in frame.to_dict("records"):
            if math.isfinite(row["mean"]):
                key = (
                    str(row["model"]).lower(), int(row["layer"]), row["support"], row["encoder"],
                    int(row["m"]), int(row["n"]), int(row["d"]), int(row["k"]), int(row["train_tokens"]),
                    row["inference"], row["metric"],
                )  # fmt: skip
                sd = row.get("sd", math.nan)
                self._values.setdefault(key, Value(float(row["mean"]), float(sd), int(row["seeds"])))
        self.models = {(key[0], key[1]) for key in self._values}

    def value(
        self,
        view: View,
        metric: str,
        support: str,
        d: int | None = None,
        *,
        k: int | None = None,
        n: int | None = None,
        encoder: str = "tied",
        inference: str = "encoder",
        tokens: int = TOKENS,
    ) -> Value | None:
        """What was published for a cell of `view`, or None."""
        place = view.place
        wide = place.m if d is None or support == "dense" else d
        return self._values.get((
            plain_name(place.model), place.layer, support, encoder, place.m, place.n if n is None else n,
            wide, view.k if k is None else k, tokens, inference, metric,
        ))  # fmt: skip

    def cell(self, view: View, metric: str, support: str, d: int | None = None, **where: Any) -> Cell:
        """The same as a cell; empty where nothing was published."""
        found = self.value(view, metric, support, d, **where)
        return found.cell if found else Cell()

    def knows(self, view: View) -> bool:
        """Whether anything was published of this model and layer."""
        return (plain_name(view.place.model), view.place.layer) in self.models


def plain_name(model: str) -> str:
    """The name without the six hex digits that changed settings append."""
    return re.sub(r"-[0-9a-f]{6}$", "", model).lower()
