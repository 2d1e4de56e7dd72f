"""One panel of the frontier: a metric against the number of learned decoder values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from expander_sae.figures.style import FAINT, INK, MUTED, SMALL, Look, look, marker_style, text_width
from expander_sae.measurements.points import Point, Series, Setting

PANEL_WIDTH, PANEL_HEIGHT = 2.66, 2.45
"""Inches."""

_SLOT = 4.8
_LEAST_SPAN = 0.06
_IN_PLACE = ("expander", "dense")
_ROLES = ("expander", "bernoulli", "clustered", "clustered_cover", "small_dense", "dense")


Looks = Callable[[Series], Look]


def looks_for(supports: Iterable[str], by_pursuit: bool = False) -> Looks:
    """How the series of a table are drawn; families without a look of their own get spare ones in turn.

    On a page where all is decoded by one pursuit (`by_pursuit`) supports keep the looks of the encoder.
    """
    newcomers = sorted({*supports} - {*_ROLES, "none"})

    def of(series: Series) -> Look:
        position = newcomers.index(series.role) if series.role in newcomers else 0
        return look(series.role, "encoder" if by_pursuit else series.inference, position)

    return of


def stored_limits(groups: Iterable[Sequence[Series]]) -> tuple[float, float]:
    """Limits of the x axis, shared by the panels of a row."""
    sizes = [point.stored for group in groups for series in group for point in series.points]
    low, high = min(sizes), max(*sizes, 1.0)
    if high / low < 3:
        low, high = low / 2, high * 2
    room = 0.09 * math.log(high / low)
    return low * math.exp(-1.3 * room), high * math.exp(1.3 * room)


def draw_panel(
    axes: Axes,
    setting: Setting,
    ours: Sequence[Series],
    published: Sequence[Series],
    row: Sequence[Series],
    limits: tuple[float, float],
    looks: Looks,
    higher_is_better: bool,
) -> None:
    """Draw all series of one metric and set both axes.

    `row` holds the series of both panels of the row, so that the panels are laid out alike.
    Series of the same stored size are set side by side by a fixed number of points on paper, and
    the seeds of a cell right beside their mean; the data are not changed.
    """
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(*_value_limits([*ours, *published], higher_is_better))
    axes.grid(axis="y")
    axes.spines[["right"]].set_visible(False)
    places = _sideways(row, limits)
    for series in ours:
        _draw_series(axes, series, looks(series), places[series.role], limits)
    for series in published:
        _draw_published(axes, series, looks(series), places.get(series.role, 0.0))
    _mark_diverged(axes, ours, places, looks, higher_is_better)
    _stored_axis(axes)
    _compression_axis(axes, setting, row, limits)


def on_scale(
    ours: Sequence[Series], published: Sequence[Series]
) -> tuple[list[Series], list[tuple[Series, Point]]]:
    """The published points that can share our axis, and those so far off that ours would be flattened.

    A published point stays within twice the range of our own values of them.
    """
    values = [value for series in ours for point in series.points for value in point.values]
    if not values:
        return list(published), []
    reach = 2 * max(max(values) - min(values), _LEAST_SPAN)
    low, high = min(values) - reach, max(values) + reach
    kept: list[Series] = []
    far: list[tuple[Series, Point]] = []
    for series in published:
        near = tuple(point for point in series.points if low <= point.mean <= high)
        far += [(series, point) for point in series.points if not low <= point.mean <= high]
        if near:
            kept.append(replace(series, points=near))
    return kept, far


def _value_limits(group: Sequence[Series], higher_is_better: bool) -> tuple[float, float]:
    points = [point for series in group for point in series.points if point.values]
    if not points:
        return 0.0, 1.0
    values = [value for point in points for value in point.values]
    least, most = min(values), max(values)
    reach = 0.3 * max(most - least, _LEAST_SPAN)
    low, high = least, most
    for point in points:
        # An interval over two seeds can be wider than all the data: it may run out of the panel.
        if math.isfinite(point.half_interval):
            low = min(low, max(point.mean - point.half_interval, least - reach))
            high = max(high, min(point.mean + point.half_interval, most + reach))
    spare = max(_LEAST_SPAN - (high - low), 0.0) / 2
    low, high = low - spare, high + spare
    good, bad = 0.07 * (high - low), 0.07 * (high - low)
    if any(point.diverged for series in group for point in series.points):
        bad = 0.16 * (high - low)
    return (low - bad, high + good) if higher_is_better else (low - good, high + bad)


def _sideways(row: Sequence[Series], limits: tuple[float, float]) -> dict[str, float]:
    """Points on paper by which each role is moved; the expander and the full dense stay in place."""
    others = [role for role in dict.fromkeys(one.role for one in row) if role not in _IN_PLACE]
    sizes = np.unique([point.stored for one in row for point in one.points if one.role == "expander"])
    step = _SLOT
    if len(sizes) > 1:
        gap = float(np.diff(np.log(sizes)).min()) / math.log(limits[1] / limits[0]) * PANEL_WIDTH * 72
        step = min(_SLOT, 0.9 * gap / (len(others) + 2))
    order = [0.0] * len(others)
    for position in range(len(others)):
        side = -1 if position % 2 == 0 else 1
        order[position] = side * step * (position // 2 + (1 if side < 0 else 1.8))
    return dict(zip(others, order, strict=True)) | {"expander": 0.0, "dense": 0.0}


def _moved(axes: Axes, points: float) -> Transform:
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes are made by a figure
    return axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def _draw_series(axes: Axes, series: Series, style: Look, place: float, limits: tuple[float, float]) -> None:
    points = [point for point in series.points if point.values]
    if not points:
        return
    moved = _moved(axes, place)
    main = series.role in _IN_PLACE
    front = 4 if series.role == "expander" else 3
    size = [point.stored for point in points]
    mean = [point.mean for point in points]
    if series.role == "dense":
        # The dense decoder has one size: its line is a level to compare with, at every size.
        for point in points:
            axes.plot(
                limits, [point.mean] * 2, style.line, color=style.colour, lw=style.width, alpha=0.75, zorder=2
            )
    elif len(points) > 1:
        axes.plot(size, mean, style.line, color=style.colour, lw=style.width, alpha=1.0 if main else 0.75,
                  transform=moved, zorder=front - 1)  # fmt: skip
    for point in points:
        half = point.half_interval
        if math.isfinite(half):
            axes.plot([point.stored] * 2, [point.mean - half, point.mean + half], color=style.colour, lw=1.0,
                      marker="_", ms=4, mew=1.0, transform=moved, zorder=front - 0.5)  # fmt: skip
        if len(point.values) > 1:
            axes.plot([point.stored] * len(point.values), point.values, ls="none", marker="o", ms=2.0,
                      mfc=style.colour, mec="none", alpha=0.8,
                      transform=_moved(axes, place + style.size / 2 + 2.0), zorder=front)  # fmt: skip
    axes.plot(
        size, mean, ls="none", color=style.colour, transform=moved, zorder=front + 0.5,
        **marker_style(style, series.encoder),
    )  # fmt: skip


def _draw_published(axes: Axes, series: Series, style: Look, place: float) -> None:
    axes.plot([point.stored for point in series.points], [point.mean for point in series.points], ls="none",
              marker=style.marker, ms=style.size + 1.8, mfc="none", mec=style.colour, mew=0.9,
              transform=_moved(axes, place), zorder=5)  # fmt: skip


def _mark_diverged(
    axes: Axes, ours: Sequence[Series], places: dict[str, float], looks: Looks, higher_is_better: bool
) -> None:
    """A cross at the bad edge for every cell with diverged seeds, once for all its inferences."""
    seen: set[tuple[str, str, int, int]] = set()
    edge = 0.05 if higher_is_better else 0.95
    low, high = axes.get_ylim()
    for series in ours:
        for point in series.points:
            cell = (series.role, series.encoder, point.n, point.d)
            if point.diverged and cell not in seen:
                seen.add(cell)
                axes.plot([point.stored], [low + edge * (high - low)], ls="none", marker="x", ms=4.5, mew=1.3,
                          color=looks(series).colour,
                          transform=_moved(axes, places[series.role]), zorder=6)  # fmt: skip


def _stored_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0)))
    axes.xaxis.set_minor_locator(LogLocator(base=10, subs=(2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learned decoder values (log scale)")


def _compression_axis(
    axes: Axes, setting: Setting, row: Sequence[Series], limits: tuple[float, float]
) -> None:
    """Ticks above the panel at the stored sizes that occur, labelled with m/d and d."""
    full = float(setting.m * setting.n)
    sizes: dict[float, int] = {}
    for series in row:
        if series.role not in ("small_dense", "dense"):
            sizes.update({point.stored: point.d for point in series.points})
    dense = any(series.role == "dense" for series in row)
    for prefix in ("d = ", "d=", ""):
        labels = {size: f"{compression(full / size)}\n{prefix}{d}" for size, d in sorted(sizes.items())}
        if dense:
            labels[full] = "1×\ndense"
        kept = _without_overlaps(labels, limits)
        if len(kept) == len(labels):
            break
    top = axes.secondary_xaxis("top")
    top.xaxis.set_major_locator(FixedLocator(sorted(labels)))
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _nearest(kept, value)))
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("compression m/d against the dense decoder" + ("" if prefix else " (below: d)"))
    for size in labels:
        axes.axvline(size, color=FAINT, lw=0.5, zorder=0)


def _without_overlaps(labels: dict[float, str], limits: tuple[float, float]) -> dict[float, str]:
    """The labels that fit, from both ends inwards by size, ends first."""
    inch = PANEL_WIDTH / math.log(limits[1] / limits[0])
    sizes = sorted(labels)
    kept: dict[float, str] = {}
    for size in [*sizes[:1], *sizes[:0:-1]]:
        width = max(text_width(line, SMALL) for line in labels[size].split("\n")) + 0.05
        spaced = all(
            abs(math.log(size / other)) * inch
            > (width + max(text_width(line, SMALL) for line in labels[other].split("\n"))) / 2
            for other in kept
        )
        if spaced:
            kept[size] = labels[size]
    return kept


def _nearest(labels: dict[float, str], value: float) -> str:
    return next((text for size, text in labels.items() if math.isclose(size, value, rel_tol=1e-6)), "")


def short_number(value: float) -> str:
    """30000 → 30k, 2400000 → 2.4M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def compression(factor: float) -> str:
    """82.29 → 82×, 5.76 → 5.8×."""
    return f"{factor:.0f}×" if factor >= 10 else f"{factor:.2g}×"


def handle(series: Series, label: str, looks: Looks) -> Line2D:
    """The legend's entry of a series."""
    style = looks(series)
    return Line2D(
        [], [], color=style.colour, ls=style.line, lw=style.width, label=label,
        **marker_style(style, series.encoder),
    )  # fmt: skip


def mark_handle(marker: str, label: str, hollow: bool = False) -> Line2D:
    """A legend entry for a kind of mark that every series shares."""
    size = 6.5 if hollow else 2.4 if marker == "o" else 4.5
    return Line2D([], [], color=MUTED if hollow else INK, ls="none", marker=marker, ms=size,
                  mfc="none" if hollow else INK, mew=0.9 if hollow else 1.3 if marker == "x" else 0.6,
                  label=label)  # fmt: skip
