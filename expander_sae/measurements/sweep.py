"""What a sweep found: the error of each recipe on the validation split, and which one is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from expander_sae.measurements import tables
from expander_sae.measurements.estimate import Estimate
from expander_sae.study.run import CELL_COLUMNS

MOST_DEAD = 0.05
"""A recipe with a larger share of features that never fire is not chosen."""

PLACE = tuple(name for name in CELL_COLUMNS if name != "recipe")
"""What recipes are compared within."""


@dataclass(frozen=True)
class Setting:
    """A recipe of one cell: swept field → value; inference → error; and the dead share of the first."""

    values: Mapping[str, Any]
    errors: Mapping[str, Estimate]
    dead: Estimate

    def error(self, inference: str) -> Estimate:
        return self.errors.get(inference, Estimate())


@dataclass(frozen=True)
class Compared:
    """The recipes of one cell.

    Args:
        place: the columns PLACE.
        by: the inference that is chosen by.
    """

    place: Mapping[str, Any]
    settings: tuple[Setting, ...]
    by: str

    @property
    def chosen(self) -> Setting | None:
        """The smallest mean error among those whose seeds are all there and that keep features alive."""
        fit = [setting for setting in self.settings if _fit(setting, self.by)]
        return min(fit, key=lambda setting: setting.error(self.by).mean, default=None)

    @property
    def at_an_end(self) -> tuple[str, ...]:
        """The fields whose chosen value is the smallest or the largest: the best may lie beyond it."""
        if self.chosen is None:
            return ()
        return tuple(
            key
            for key, value in self.chosen.values.items()
            if len(known := numbers(setting.values[key] for setting in self.settings)) > 1
            and value in (min(known), max(known))
        )


def numbers(values: Iterable[Any]) -> list[float]:
    """The numbers among them, each once, in order."""
    return sorted({value for value in values if isinstance(value, int | float)})


def _fit(setting: Setting, by: str) -> bool:
    error = setting.error(by)
    return bool(error) and not error.diverged and setting.dead.mean <= MOST_DEAD


def read_sweep(
    parts: Iterable[str | Path], values: Mapping[str, Mapping[str, Any]], inference: list[str]
) -> list[Compared]:
    """Tables of `evaluation.validation` put together, in the order of the cells.

    Args:
        values: label of a recipe → its swept values; rows of others are left out.
        inference: the first is chosen by.
    """
    rows = pd.concat([tables.read_metrics(part) for part in parts])
    found = []
    for place, cell in rows[rows["recipe"].isin(list(values))].groupby(list(PLACE)):
        settings = [
            Setting(
                values[label],
                {name: _estimate(part, name, "relative_error") for name in inference},
                _estimate(part, inference[0], "dead_fraction"),
            )
            for label in values
            if len(part := cell[cell["recipe"] == label])
        ]
        found.append(Compared(dict(zip(PLACE, place, strict=True)), tuple(settings), inference[0]))
    return found


def _estimate(rows: pd.DataFrame, inference: str, metric: str) -> Estimate:
    of = {name: _by_seed(rows, inference, name) for name in ("diverged", metric)}
    broken = {seed for seed, value in of["diverged"].items() if value}
    kept = {seed: value for seed, value in of[metric].items() if seed not in broken}
    return Estimate(kept, len(of["diverged"]), len(broken))


def _by_seed(rows: pd.DataFrame, inference: str, metric: str) -> dict[int, float]:
    rows = rows[(rows["inference"] == inference) & (rows["metric"] == metric)]
    return dict(zip(rows["seed"].tolist(), rows["value"].tolist(), strict=True))
