"""A figure as a sheet: title, panels, legend and notes, laid out for a page or for one column.

What is drawn and how it is laid out are apart, so that every figure exists twice: as wide as a page,
two panels abreast, and as wide as a column, one panel below the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from expander_sae.figures.style import (
    COLUMN_WIDTH,
    INK,
    LARGE,
    MUTED,
    NORMAL,
    PAGE_WIDTH,
    SMALL,
    Look,
    new_figure,
    text_width,
    wrap,
)
from expander_sae.measurements.cells import Cell


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `draw` is given the axes; `height` in inches; `wide` takes a whole page's width.

    left: inches left of the axes, for labels of categories.
    """

    title: str
    draw: Callable[[Axes], None]
    xlabel: str = ""
    ylabel: str = ""
    height: float = 1.95
    left: float = 0.66
    wide: bool = False


@dataclass(frozen=True)
class Sheet:
    """A figure. `missing` names what the tables do not hold; without panels nothing else is drawn."""

    title: str
    subtitle: str = ""
    panels: Sequence[Panel] = ()
    legend: Sequence[Artist] = ()
    notes: Sequence[str] = ()
    missing: Sequence[str] = ()
    legend_columns: int = 2

    @property
    def remarks(self) -> list[str]:
        """Notes, and what is missing as the last of them."""
        missing = list(dict.fromkeys(self.missing))
        return [*self.notes, *(["Not measured: " + "; ".join(missing) + "."] if missing else [])]


_MARGIN, _RIGHT, _LINE = 0.12, 0.12, 0.135
_BELOW = 0.42


def _above(row: Sequence[Panel]) -> float:
    """Inches above the axes of a row, for their titles."""
    return 0.27 if any(panel.title for panel in row) else 0.12


def compose(sheet: Sheet, columns: int = 2) -> Figure:
    """Lay a sheet out: `columns` panels abreast on a page, or one in a column."""
    broad = columns > 1 and (len(sheet.panels) > 1 or any(panel.wide for panel in sheet.panels))
    width = PAGE_WIDTH if broad else COLUMN_WIDTH
    text = width - 2 * _MARGIN
    title = wrap(sheet.title, text, LARGE - 1, "bold")
    subtitle = wrap(sheet.subtitle, text, SMALL)
    notes = [line for note in sheet.remarks for line in wrap(note, text, SMALL)]
    rows = _rows(sheet.panels, broad)
    heights = [max(panel.height for panel in row) + _above(row) + _BELOW for row in rows]
    legend_columns = sheet.legend_columns if broad else 1
    legend = 0.142 * -(-len(sheet.legend) // max(legend_columns, 1)) + (0.08 if sheet.legend else 0)
    head = _MARGIN + 0.175 * len(title) + _LINE * len(subtitle) + 0.06
    height = head + sum(heights) + legend + _LINE * len(notes) + _MARGIN
    figure = new_figure(width, height)
    _text(figure, title, _MARGIN, LARGE - 1, 0.175, weight="bold")
    _text(figure, subtitle, _MARGIN + 0.175 * len(title), SMALL, _LINE, colour=MUTED)
    top = head
    for row, row_height in zip(rows, heights, strict=True):
        share = width / (1 if row[0].wide or not broad else 2)
        for place, panel in enumerate(row):
            left = place * share + panel.left
            box = (left, height - top - _above(row) - panel.height, share - panel.left - _RIGHT, panel.height)
            axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y")
            panel.draw(axes)
            axes.set_title(panel.title, loc="left", fontsize=NORMAL, color=INK, pad=4)
            if panel.xlabel:
                axes.set_xlabel(panel.xlabel)
            if panel.ylabel:
                axes.set_ylabel(panel.ylabel)
        top += row_height
    if sheet.legend:
        figure.legend(
            handles=list(sheet.legend), loc="upper left", bbox_to_anchor=(_MARGIN / width, 1 - top / height),
            ncols=legend_columns, borderaxespad=0, borderpad=0, labelspacing=0.45, handlelength=2.4,
        )  # fmt: skip
    _text(figure, notes, top + legend, SMALL, _LINE, colour=MUTED)
    return figure


def _rows(panels: Sequence[Panel], broad: bool) -> list[list[Panel]]:
    rows: list[list[Panel]] = []
    for panel in panels:
        if broad and rows and len(rows[-1]) < 2 and not panel.wide and not rows[-1][0].wide:
            rows[-1].append(panel)
        else:
            rows.append([panel])
    return rows


def _text(
    figure: Figure, lines: Sequence[str], top: float, size: float, leading: float,
    weight: str = "normal", colour: str = INK,
) -> None:  # fmt: skip
    width, height = figure.get_size_inches()
    for place, line in enumerate(lines):
        figure.text(_MARGIN / width, 1 - (top + place * leading) / height, line, size=size, weight=weight,
                    color=colour, va="top", ha="left")  # fmt: skip


@dataclass
class Line:
    """A series: its cells over x, how it looks and what the legend calls it."""

    label: str
    look: Look
    cells: dict[float, Cell]
    joined: bool = True
    hollow: bool = False
    shift: float = 0.0

    @property
    def kept(self) -> dict[float, Cell]:
        """The cells that have a value, by x."""
        return {x: cell for x, cell in sorted(self.cells.items()) if cell}


@dataclass
class Plot:
    """Series over a numeric axis, drawn alike everywhere: means joined, seeds as dots, t intervals."""

    lines: list[Line] = field(default_factory=list)
    log: bool = True
    log_y: bool = False
    levels: Sequence[tuple[float, Look]] = ()
    band: tuple[float, float] | None = None
    zero: bool = False
    limits: tuple[float | None, float | None] = (None, None)

    @property
    def empty(self) -> bool:
        return not any(line.kept for line in self.lines)

    def __call__(self, axes: Axes) -> None:
        xs = sorted({x for line in self.lines for x in line.kept})
        if not xs:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
            axes.set_xticks([])
            axes.set_yticks([])
            return
        number_axis(axes, xs, self.log)
        if self.log_y:
            axes.set_yscale("log")
        if self.band:
            axes.axhspan(*self.band, color="#E8E8E8", lw=0, zorder=0)
        if self.zero:
            axes.axhline(0, color=MUTED, lw=0.7, zorder=1)
        for level, style in self.levels:
            if math.isfinite(level):
                axes.axhline(level, color=style.colour, ls=style.line, lw=1.0, alpha=0.8, zorder=1)
        for line in self.lines:
            draw_line(axes, line, self.log, xs)
        if not self.log_y:
            levels = [*(level for level, _ in self.levels), *(self.band or ()), *([0.0] if self.zero else [])]
            fit(axes, [cell for line in self.lines for cell in line.kept.values()], levels)
        low, high = self.limits
        if low is not None or high is not None:
            axes.set_ylim(low, high)


def draw_line(axes: Axes, line: Line, log: bool, xs: Sequence[float]) -> None:
    """The mean of each cell, its interval and its seeds."""
    kept = line.kept
    if not kept:
        return
    step = (math.log(xs[-1] / xs[0]) if log else xs[-1] - xs[0]) if len(xs) > 1 else 1.0
    moved = [x * math.exp(line.shift * step) if log else x + line.shift * step for x in kept]
    means = [cell.mean for cell in kept.values()]
    style = line.look
    if line.joined and len(kept) > 1:
        axes.plot(moved, means, style.line, color=style.colour, lw=style.width, zorder=3)
    for x, cell in zip(moved, kept.values(), strict=True):
        if math.isfinite(cell.half) and not line.hollow:
            axes.plot([x, x], [cell.mean - cell.half, cell.mean + cell.half], color=style.colour, lw=0.9,
                      zorder=3, solid_capstyle="butt")  # fmt: skip
    axes.plot(moved, means, ls="none", marker=style.marker, color=style.colour, zorder=4,
              ms=style.size + (1.6 if line.hollow else 0), mfc="none" if line.hollow else style.colour,
              mec=style.colour if line.hollow else "white", mew=0.9 if line.hollow else 0.5)  # fmt: skip


def number_axis(axes: Axes, xs: Sequence[float], log: bool = True) -> None:
    """Ticks at the values that occur, those without room left unlabelled."""
    if log:
        axes.set_xscale("log")
    place: Callable[[float], float] = math.log if log else float
    low, high = place(xs[0]), place(xs[-1])
    room = 0.08 * (high - low) if high > low else (0.7 if log else 1.0)
    ends = (low - room, high + room)
    axes.set_xlim(math.exp(ends[0]) if log else ends[0], math.exp(ends[1]) if log else ends[1])
    box = axes.get_position()
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes are made by a figure
    inches = box.width * figure.get_size_inches()[0]
    labelled: dict[float, str] = {}
    last = -math.inf
    for x in xs:
        text = short(x)
        at = (place(x) - ends[0]) / (ends[1] - ends[0]) * inches
        if at - last > text_width(text, SMALL) + 0.05:
            labelled[x] = text
            last = at
    axes.xaxis.set_major_locator(FixedLocator(list(xs)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: next((t for x, t in labelled.items() if math.isclose(x, value)), ""))
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def fit(axes: Axes, cells: Iterable[Cell], more: Sequence[float] = ()) -> None:
    """The y range of means, levels and of intervals that are not far wider than both."""
    cells = [cell for cell in cells if cell]
    known = [*(cell.mean for cell in cells), *(value for value in more if math.isfinite(value))]
    if not known:
        return
    low, high = min(known), max(known)
    reach = 0.35 * max(high - low, 0.02 * max(abs(low), abs(high)), 1e-9)
    for cell in cells:
        if math.isfinite(cell.half):
            low = min(low, max(cell.mean - cell.half, min(known) - reach))
            high = max(high, min(cell.mean + cell.half, max(known) + reach))
    # Where all is 0, a range in which 0 reads as 0.
    room = 0.07 * (max(high - low, 0.02 * max(abs(low), abs(high))) or 1.0)
    axes.set_ylim(low - room, high + room)


def category_axis(axes: Axes, names: Sequence[str]) -> None:
    """Categories from top to bottom, a line for each."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.grid(axis="y", visible=False)


def label_room(names: Iterable[str]) -> float:
    """Inches left of the axes that labels of categories take."""
    return 0.22 + max((text_width(name, SMALL) for name in names), default=0.0)


def draw_rows(axes: Axes, names: Sequence[str], lines: Sequence[Line]) -> None:
    """Cells of several series over categories: `Line.cells` by place from the top."""
    category_axis(axes, names)
    for line in lines:
        style = line.look
        for place, cell in line.kept.items():
            y = place + line.shift
            if math.isfinite(cell.half) and not line.hollow:
                axes.plot([cell.mean - cell.half, cell.mean + cell.half], [y, y], color=style.colour, lw=0.9)
            axes.plot([cell.mean], [y], ls="none", marker=style.marker, ms=style.size, color=style.colour,
                      mfc="none" if line.hollow else style.colour,
                      mec=style.colour if line.hollow else "white", mew=0.9 if line.hollow else 0.5,
                      zorder=4)  # fmt: skip


def key(line: Line) -> Line2D:
    """A series in the legend."""
    style = line.look
    return Line2D([], [], color=style.colour, ls=style.line if line.joined else "none", lw=style.width,
                  marker=style.marker, ms=style.size, label=line.label,
                  mfc="none" if line.hollow else style.colour,
                  mec=style.colour if line.hollow else "white", mew=0.9 if line.hollow else 0.5)  # fmt: skip


def level_key(look: Look, label: str) -> Line2D:
    """A level in the legend."""
    return Line2D([], [], color=look.colour, ls=look.line, lw=1.0, label=label)


def mark_key(label: str, **style: Any) -> Line2D:
    """A kind of mark in the legend."""
    return Line2D([], [], ls="none", label=label, **{"color": INK, "ms": 4.5, "mew": 0.9, **style})


def keys(lines: Iterable[Line]) -> list[Line2D]:
    """Legend entries of the series that have any value, each label once."""
    found: dict[str, Line2D] = {}
    for line in lines:
        if line.kept and line.label:
            found.setdefault(line.label, key(line))
    return list(found.values())


def short(value: float) -> str:
    """4096 → 4,096, 30000 → 30k, 2400000 → 2.4M."""
    if 1000 < value < 10_000 and value % 1000:
        return f"{value:,.0f}"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}" if value % unit else f"{value / unit:.0f}{name}"
    return f"{value:g}"


def seeds_note(cells: Iterable[Cell]) -> list[str]:
    """How many seeds stand behind the marks, and how many diverged."""
    cells = [cell for cell in cells if cell.asked]
    if not cells:
        return []
    counts = sorted({len(cell.values) for cell in cells if cell})
    span = "" if not counts else f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]}–{counts[-1]}"
    notes = [f"Seeds per mark: {span}; bars are 95 % intervals of the mean over seeds."] if span else []
    lost = sum(cell.diverged for cell in cells)
    if lost:
        notes.append(f"Seeds that diverged and are in no mean: {lost}.")
    return notes
