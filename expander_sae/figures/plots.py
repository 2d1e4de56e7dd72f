"""Series over an axis and what the legend says of them: drawn alike in every figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from expander_sae.figures.style import INK, MUTED, SMALL, Look, text_width
from expander_sae.measurements.estimate import Estimate


@dataclass
class Line:
    """A series: its estimates over x, how it looks and what the legend calls it."""

    label: str
    look: Look
    cells: dict[float, Estimate]
    joined: bool = True
    hollow: bool = False
    shift: float = 0.0

    @property
    def kept(self) -> dict[float, Estimate]:
        """The estimates that have a value, by x."""
        return {x: cell for x, cell in sorted(self.cells.items()) if cell}

    @property
    def marks(self) -> dict[str, Any]:
        """Keywords of `Axes.plot` for its markers."""
        colour = self.look.colour
        face = {"mfc": "none", "mec": colour, "mew": 0.9} if self.hollow else {"mec": "white", "mew": 0.5}
        return {"marker": self.look.marker, "color": colour, "ms": self.look.size, **face}


@dataclass
class Plot:
    """Series over a numeric axis, drawn alike everywhere: means joined, with their t intervals."""

    lines: list[Line] = field(default_factory=list)
    log: bool = True
    log_y: bool = False
    levels: Sequence[tuple[float, Look]] = ()
    band: tuple[float, float] | None = None
    zero: bool = False
    limits: tuple[float | None, float | None] = (None, None)

    def __call__(self, axes: Axes) -> None:
        xs = sorted({x for line in self.lines for x in line.kept})
        if not xs:
            not_measured(axes)
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


def not_measured(axes: Axes) -> None:
    """Says so in the middle of a panel."""
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)


def draw_line(axes: Axes, line: Line, log: bool, xs: Sequence[float]) -> None:
    """The mean of each cell and its interval."""
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
    size = style.size + (1.6 if line.hollow else 0)
    axes.plot(moved, means, ls="none", zorder=4, **{**line.marks, "ms": size})


def width_of(axes: Axes) -> float:
    """Inches from the left to the right of the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes are made by a figure
    return float(axes.get_position().width * figure.get_size_inches()[0])


def height_of(axes: Axes) -> float:
    """Inches from the bottom to the top of the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes are made by a figure
    return float(axes.get_position().height * figure.get_size_inches()[1])


def number_axis(axes: Axes, xs: Sequence[float], log: bool = True) -> None:
    """Ticks at the values that occur, those without room left unlabelled."""
    if log:
        axes.set_xscale("log")
    place: Callable[[float], float] = math.log if log else float
    low, high = place(xs[0]), place(xs[-1])
    room = 0.08 * (high - low) if high > low else (0.7 if log else 1.0)
    ends = (low - room, high + room)
    axes.set_xlim(math.exp(ends[0]) if log else ends[0], math.exp(ends[1]) if log else ends[1])
    inches = width_of(axes)
    labelled: dict[float, str] = {}
    last = -math.inf
    for x in xs:
        text = short(x)
        at = (place(x) - ends[0]) / (ends[1] - ends[0]) * inches
        if at - last > text_width(text, SMALL) + 0.05:
            labelled[x] = text
            last = at
    axes.xaxis.set_major_locator(FixedLocator(list(xs)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: nearest(labelled, value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def nearest(labels: dict[float, str], value: float) -> str:
    """The label at a value, up to rounding."""
    return next((text for x, text in labels.items() if math.isclose(x, value, rel_tol=1e-6)), "")


def fit(axes: Axes, cells: Iterable[Estimate], more: Sequence[float] = ()) -> None:
    """The y range of means, levels and of intervals that are not far wider than both."""
    cells = [cell for cell in cells if cell]
    known = [*(cell.mean for cell in cells), *(value for value in more if math.isfinite(value))]
    if not known:
        return
    low, high = min(known), max(known)
    reach = 0.35 * max(high - low, 0.02 * max(abs(low), abs(high)), 1e-9)
    low, high = widened(low, high, cells, reach)
    # Where all is 0, a range in which 0 reads as 0.
    room = 0.07 * (max(high - low, 0.02 * max(abs(low), abs(high))) or 1.0)
    axes.set_ylim(low - room, high + room)


def widened(low: float, high: float, cells: Iterable[Estimate], reach: float) -> tuple[float, float]:
    """A range and the intervals, at most `reach` more: over two seeds one can be wider than all the data."""
    least, most = low, high
    for cell in cells:
        if math.isfinite(cell.half):
            low = min(low, max(cell.mean - cell.half, least - reach))
            high = max(high, min(cell.mean + cell.half, most + reach))
    return low, high


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
        for place, cell in line.kept.items():
            y = place + line.shift
            if math.isfinite(cell.half) and not line.hollow:
                ends = [cell.mean - cell.half, cell.mean + cell.half]
                axes.plot(ends, [y, y], color=line.look.colour, lw=0.9)
            axes.plot([cell.mean], [y], ls="none", zorder=4, **line.marks)


def key(line: Line) -> Line2D:
    """A series in the legend."""
    return Line2D([], [], ls=line.look.line if line.joined else "none", lw=line.look.width, label=line.label,
                  **line.marks)  # fmt: skip


def level_key(look: Look, label: str) -> Line2D:
    """A level in the legend."""
    return Line2D([], [], color=look.colour, ls=look.line, lw=1.0, label=label)


def mark_key(label: str, **style: Any) -> Line2D:
    """A kind of mark in the legend."""
    return Line2D([], [], ls="none", label=label, **{"color": INK, "ms": 4.5, "mew": 0.9, **style})


def published_key(lines: Iterable[Line]) -> list[Line2D]:
    """The legend's entry for published means, where there are any."""
    shown = any(line.hollow and line.kept for line in lines)
    return [mark_key("hollow: published mean [1]", marker="o", mfc="none", ms=6)] if shown else []


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


def seeds_note(cells: Iterable[Estimate]) -> list[str]:
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
