"""What most figures are: a sheet for each place, with CE recovered and relative error side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.plots import Line, Plot
from expander_sae.figures.style import BLACK, Look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View

CE, ERROR = "ce_recovered", "relative_error"
LABELS = {CE: "CE recovered ↑", ERROR: "relative error ↓"}
DENSE = Look(BLACK, "h", "--", 1.0, 5.0)
OVER_D = "d, nonzeros of a column (log)"


def by_place(results: Results, draw: Callable[[View], Sheet]) -> list[Sheet]:
    """A sheet for each place that has something to show; the first in any case."""
    sheets = [draw(view) for view in results.views]
    return sheets[:1] + [sheet for sheet in sheets[1:] if sheet.panels]


def by_metric(
    lines_of: Callable[[str], list[Line]], xlabel: str, height: float = 1.95,
    levels: Callable[[str], Sequence[tuple[float, Look]]] = lambda metric: (),
) -> tuple[list[Panel], list[Line]]:  # fmt: skip
    """A panel of each of the two metrics, and the lines of both."""
    lines = {metric: lines_of(metric) for metric in (CE, ERROR)}
    panels = [
        Panel("", Plot(drawn, levels=levels(metric)), xlabel, LABELS[metric], height)
        for metric, drawn in lines.items()
    ]
    return panels, [line for drawn in lines.values() for line in drawn]


def with_published(
    label: str, look: Look, ours: dict[float, Estimate], published: dict[float, Estimate], **style: Any
) -> list[Line]:
    """A series, and what was published of it, hollow."""
    beside = Line("", look, published, **{**style, "joined": False, "hollow": True})
    return [Line(label, look, ours, **style), beside]
