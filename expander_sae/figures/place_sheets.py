"""What most figures are: a sheet for each place, with CE recovered and relative error side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from matplotlib.artist import Artist

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.plots import Line, Plot, keys, published_key, seeds_note
from expander_sae.figures.style import BLACK, Look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View

CE, ERROR = "ce_recovered", "relative_error"
LABELS = {CE: "CE recovered ↑", ERROR: "relative error ↓"}
DENSE = Look(BLACK, "h", "--", 1.0, 5.0)
OVER_D = "d, nonzeros of a column (log)"


def by_place(draw: Callable[[View], Sheet]) -> Callable[[Results], list[Sheet]]:
    """A figure that has a sheet for each place that has something to show; the first in any case."""

    @wraps(draw)
    def figure(results: Results) -> list[Sheet]:
        sheets = [draw(view) for view in results.views]
        return sheets[:1] + [sheet for sheet in sheets[1:] if sheet.panels]

    return figure


def curves(
    view: View, metric: str, support: str, xs: Sequence[int], over: str = "d", **fixed: Any
) -> tuple[dict[float, Estimate], dict[float, Estimate]]:
    """A metric over a column: our estimates, and what was published of the same cells."""
    ours = {float(x): view.estimate(metric, support, **{over: x, **fixed}) for x in xs}
    return ours, {float(x): view.published(metric, support, **{over: x, **fixed}).estimate for x in xs}


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


def lines_sheet(
    title: str, where: object, panels: Sequence[Panel], lines: Sequence[Line], marks: Sequence[Artist] = (),
    notes: Sequence[str] = (), missing: Sequence[str] = (),
) -> Sheet:  # fmt: skip
    """A sheet of series: the legend has each of them and other `marks`, the notes begin with the seeds."""
    legend = [*keys(lines), *marks, *published_key(lines)]
    ours = (cell for line in lines if not line.hollow for cell in line.cells.values())
    return Sheet(title, str(where), panels, legend, [*seeds_note(ours), *notes], missing)
