"""One panel of the frontier: a metric against the number of learned decoder values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from expander_sae.figures.frontier_series import Point, Series
from expander_sae.figures.plots import nearest, not_measured, short, widened, width_of
from expander_sae.figures.style import FAINT, SMALL, Look, Looks, marker_style, text_width
from expander_sae.masks.supports import described, followed
from expander_sae.measurements.view import Place

_SLOT = 4.8
_LEAST_SPAN = 0.06


@dataclass(frozen=True)
class FrontierPanel:
    """Draws all series of one metric and sets both axes.

    Series of the same stored size are set side by side by a fixed number of points on paper, and
    the seeds of a cell right beside their mean; the data are not changed.

    Args:
        row: ours of both panels of the row, so that the panels are laid out alike.
        limits: of the x axis, shared by the panels of the row.
    """

    place: Place
    ours: Sequence[Series]
    published: Sequence[Series]
    row: Sequence[Series]
    limits: tuple[float, float]
    looks: Looks
    higher_is_better: bool

    def __call__(self, axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xlim(*self.limits)
        axes.set_ylim(*self._value_limits())
        sideways = self._sideways(width_of(axes))
        for series in self.ours:
            _draw_series(axes, series, self._look(series), sideways[series.role], self.limits)
        for series in self.published:
            _draw_published(axes, series, self._look(series), sideways.get(series.role, 0.0))
        self._mark_diverged(axes, sideways)
        _stored_axis(axes)
        self._compression_axis(axes)
        if not any(point.estimate for series in self.ours for point in series.points):
            not_measured(axes)

    def _look(self, series: Series) -> Look:
        return self.looks(series.role, series.inference)

    def _value_limits(self) -> tuple[float, float]:
        points = [point for series in (*self.ours, *self.published) for point in series.points]
        estimates = [point.estimate for point in points if point.estimate]
        if not estimates:
            return 0.0, 1.0
        values = [value for estimate in estimates for value in estimate.values.values()]
        low, high = min(values), max(values)
        low, high = widened(low, high, estimates, 0.3 * max(high - low, _LEAST_SPAN))
        spare = max(_LEAST_SPAN - (high - low), 0.0) / 2
        low, high = low - spare, high + spare
        good = 0.07 * (high - low)
        bad = 0.16 * (high - low) if any(point.estimate.diverged for point in points) else good
        return (low - bad, high + good) if self.higher_is_better else (low - good, high + bad)

    def _sideways(self, width: float) -> dict[str, float]:
        """Points on paper by which each role is moved; the expander and the full dense stay in place."""
        others = [role for role in dict.fromkeys(one.role for one in self.row) if role not in followed()]
        sizes = np.unique(
            [point.stored for one in self.row for point in one.points if one.role == "expander"]
        )
        step = _SLOT
        if len(sizes) > 1:
            gap = float(np.diff(np.log(sizes)).min()) / math.log(self.limits[1] / self.limits[0]) * width * 72
            step = min(_SLOT, 0.9 * gap / (len(others) + 2))
        order = [0.0] * len(others)
        for position in range(len(others)):
            side = -1 if position % 2 == 0 else 1
            order[position] = side * step * (position // 2 + (1 if side < 0 else 1.8))
        return dict(zip(others, order, strict=True)) | dict.fromkeys(followed(), 0.0)

    def _mark_diverged(self, axes: Axes, sideways: dict[str, float]) -> None:
        """A cross at the bad edge for every cell with diverged seeds, once for all its inferences."""
        low, high = axes.get_ylim()
        edge = low + (0.05 if self.higher_is_better else 0.95) * (high - low)
        seen = set()
        for series in self.ours:
            for point in series.points:
                if point.estimate.diverged and point.cell not in seen:
                    seen.add(point.cell)
                    axes.plot([point.stored], [edge], ls="none", marker="x", ms=4.5, mew=1.3,
                              color=self._look(series).colour,
                              transform=_moved(axes, sideways[series.role]), zorder=6)  # fmt: skip

    def _compression_axis(self, axes: Axes) -> None:
        """Ticks above the panel at the stored sizes that occur, labelled with m/d and d."""
        full = float(self.place.m * self.place.n)
        sizes = {
            point.stored: point.cell.d
            for series in self.row
            if not described(series.role).full
            for point in series.points
        }
        inch = width_of(axes) / math.log(self.limits[1] / self.limits[0])
        for prefix in ("d = ", "d=", ""):
            labels = {size: f"{compression(full / size)}\n{prefix}{d}" for size, d in sorted(sizes.items())}
            if any(series.role == "dense" for series in self.row):
                labels[full] = "1×\ndense"
            kept = _without_overlaps(labels, inch)
            if len(kept) == len(labels):
                break
        top = axes.secondary_xaxis("top")
        top.xaxis.set_major_locator(FixedLocator(sorted(labels)))
        top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: nearest(kept, value)))
        top.xaxis.set_minor_locator(NullLocator())
        top.set_xlabel("compression m/d against the dense decoder" + ("" if prefix else " (below: d)"))
        for size in labels:
            axes.axvline(size, color=FAINT, lw=0.5, zorder=0)


def stored_limits(groups: Iterable[Sequence[Series]]) -> tuple[float, float]:
    """Limits of the x axis, shared by the panels of a row."""
    sizes = [point.stored for group in groups for series in group for point in series.points]
    low, high = min(sizes), max(*sizes, 1.0)
    if high / low < 3:
        low, high = low / 2, high * 2
    room = 0.09 * math.log(high / low)
    return low * math.exp(-1.3 * room), high * math.exp(1.3 * room)


def on_scale(
    ours: Sequence[Series], published: Sequence[Series]
) -> tuple[list[Series], list[tuple[Series, Point]]]:
    """The published points that can share our axis, and those so far off that ours would be flattened.

    A published point stays within twice the range of our own values of them.
    """
    values = [v for series in ours for point in series.points for v in point.estimate.values.values()]
    if not values:
        return list(published), []
    reach = 2 * max(max(values) - min(values), _LEAST_SPAN)
    low, high = min(values) - reach, max(values) + reach
    kept: list[Series] = []
    far: list[tuple[Series, Point]] = []
    for series in published:
        near = tuple(point for point in series.points if low <= point.estimate.mean <= high)
        far += [(series, point) for point in series.points if point not in near]
        if near:
            kept.append(replace(series, points=near))
    return kept, far


def _moved(axes: Axes, points: float) -> Transform:
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes are made by a figure
    return axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def _draw_series(axes: Axes, series: Series, style: Look, place: float, limits: tuple[float, float]) -> None:
    points = [point for point in series.points if point.estimate]
    if not points:
        return
    moved = _moved(axes, place)
    front = 4 if series.role == "expander" else 3
    size = [point.stored for point in points]
    mean = [point.estimate.mean for point in points]
    if series.role == "dense":
        # The dense decoder has one size: its line is a level to compare with, at every size.
        for level in mean:
            axes.plot(
                limits, [level] * 2, style.line, color=style.colour, lw=style.width, alpha=0.75, zorder=2
            )
    elif len(points) > 1:
        axes.plot(size, mean, style.line, color=style.colour, lw=style.width, transform=moved,
                  alpha=1.0 if series.role == "expander" else 0.75, zorder=front - 1)  # fmt: skip
    for point in points:
        middle, half = point.estimate.mean, point.estimate.half
        if math.isfinite(half):
            axes.plot([point.stored] * 2, [middle - half, middle + half], color=style.colour, lw=1.0,
                      marker="_", ms=4, mew=1.0, transform=moved, zorder=front - 0.5)  # fmt: skip
        seeds = list(point.estimate.values.values())
        if len(seeds) > 1:
            axes.plot([point.stored] * len(seeds), seeds, ls="none", marker="o", ms=2.0,
                      mfc=style.colour, mec="none", alpha=0.8,
                      transform=_moved(axes, place + style.size / 2 + 2.0), zorder=front)  # fmt: skip
    axes.plot(size, mean, ls="none", color=style.colour, transform=moved, zorder=front + 0.5,
              **marker_style(style, series.encoder))  # fmt: skip


def _draw_published(axes: Axes, series: Series, style: Look, place: float) -> None:
    size, mean = zip(*((point.stored, point.estimate.mean) for point in series.points), strict=True)
    axes.plot(size, mean, ls="none", marker=style.marker, ms=style.size + 1.8, mfc="none", mec=style.colour,
              mew=0.9, transform=_moved(axes, place), zorder=5)  # fmt: skip


def _stored_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0)))
    axes.xaxis.set_minor_locator(LogLocator(base=10, subs=(2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _without_overlaps(labels: dict[float, str], inch: float) -> dict[float, str]:
    """The labels that fit, from both ends inwards by size, ends first. inch: inches of one unit of log."""

    def width(size: float) -> float:
        return max(text_width(line, SMALL) for line in labels[size].split("\n"))

    sizes = sorted(labels)
    kept: dict[float, str] = {}
    for size in [*sizes[:1], *sizes[:0:-1]]:
        if all(
            abs(math.log(size / other)) * inch > (width(size) + 0.05 + width(other)) / 2 for other in kept
        ):
            kept[size] = labels[size]
    return kept


def compression(factor: float) -> str:
    """82.29 → 82×, 5.76 → 5.8×."""
    return f"{factor:.0f}×" if factor >= 10 else f"{factor:.2g}×"
