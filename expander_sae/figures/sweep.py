"""Validation error over a swept value of the recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from expander_sae.figures.layout import Panel, Sheet, compose
from expander_sae.figures.plots import Line, Plot, key, mark_key
from expander_sae.figures.style import INK, house_style, step_look, write_pages
from expander_sae.measurements.sweep import MOST_DEAD, Compared

_RING: dict[str, Any] = {"marker": "o", "mfc": "none", "mec": INK, "mew": 1.0, "ms": 8}


def sweep_sheet(found: Sequence[Compared]) -> Sheet:
    """A panel a cell: error over the first swept field, a line for each combination of the others."""
    over, *others = found[0].settings[0].values
    combinations = dict.fromkeys(
        tuple(setting.values[name] for name in others) for cell in found for setting in cell.settings
    )
    looks = {combination: step_look(place) for place, combination in enumerate(combinations)}

    def lines(cell: Compared) -> list[Line]:
        return [
            Line(
                ", ".join(f"{name} = {value}" for name, value in zip(others, fixed, strict=True)),
                look,
                {
                    setting.values[over]: setting.error(cell.by)
                    for setting in cell.settings
                    if tuple(setting.values[name] for name in others) == fixed
                },
            )
            for fixed, look in looks.items()
        ]

    panels = [
        Panel(_title(cell), _draw(cell, over, lines(cell)), f"{over} (log)", f"relative error by {cell.by} ↓")
        for cell in found
    ]
    legend = [key(line) for line in lines(found[0]) if line.label]
    legend.append(mark_key("chosen: the smallest mean error", **_RING))
    note = f"Held-out tokens of the validation split. Chosen are recipes with at most {MOST_DEAD:.0%} dead."
    return Sheet("Recipes on the validation split", "", panels, legend, [note])


def _title(cell: Compared) -> str:
    support, n, d, layer, steps = (cell.place[name] for name in ("support", "n", "d", "layer", "steps"))
    return f"{support} n = {n:,}, d = {d}, layer {layer}, {steps:,} steps"


def _draw(cell: Compared, over: str, lines: list[Line]) -> Callable[[Axes], None]:
    plot, chosen = Plot(lines), cell.chosen

    def draw(axes: Axes) -> None:
        plot(axes)
        if chosen is not None:
            axes.plot([chosen.values[over]], [chosen.error(cell.by).mean], ls="none", zorder=6, **_RING)

    return draw


def draw_sweep(found: Sequence[Compared], out_pdf: str | Path, out_png: str | Path) -> None:
    """Write the figure of a sweep."""
    with house_style():
        write_pages([compose(sweep_sheet(found))], out_pdf, out_png)
