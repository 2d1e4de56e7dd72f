"""The storage–fidelity frontier: `results/frontier.pdf` from `results/metrics.parquet`.

Page 1 (and on, three rows to a page): one row for every model, layer and k, with CE recovered and
relative error against learned decoder values. Then, where the table has them, the same rows with
the two other baselines of CE recovered, and with every support decoded by OMP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from expander_sae.figures import captions
from expander_sae.figures.frontier_panel import (
    PANEL_HEIGHT,
    PANEL_WIDTH,
    Looks,
    draw_panel,
    handle,
    looks_for,
    mark_handle,
    on_scale,
    stored_limits,
)
from expander_sae.figures.layout import Sheet, compose
from expander_sae.figures.style import (
    INK,
    LARGE,
    MUTED,
    NORMAL,
    PAGE_WIDTH,
    SMALL,
    house_style,
    new_figure,
    wrap,
    write_pages,
)
from expander_sae.measurements.points import (
    Point,
    Series,
    Setting,
    drawing_order,
    model_cross_entropies,
    published_series,
    read_metrics,
    read_published,
    runs_of,
    series,
    settings,
)

ROWS_PER_PAGE = 3

_LEFT, _GAP, _LINE = 0.74, 0.80, 0.135
_HEADING, _ABOVE_PANEL, _BELOW_PANEL = 0.155, 0.55, 0.46
_PANEL_AND_AXES = _ABOVE_PANEL + PANEL_HEIGHT + _BELOW_PANEL
_TEXT_WIDTH = PAGE_WIDTH - 0.30
_MARGIN = 0.15


@dataclass(frozen=True)
class Row:
    """One row of two panels: the series of each, ours and published, and published points left out."""

    setting: Setting
    ours: tuple[list[Series], list[Series]]
    published: tuple[list[Series], list[Series]]
    off_scale: tuple[list[tuple[Series, Point]], list[tuple[Series, Point]]]
    entropies: dict[str, float]

    @property
    def all_series(self) -> list[Series]:
        """Ours, of both panels, in drawing order."""
        both = [*self.ours[0], *self.ours[1]]
        return sorted(both, key=lambda one: drawing_order((one.role, one.encoder)))


def draw(
    metrics_parquet: str | Path, published_csv: str | Path | None, out_pdf: str | Path, out_png: str | Path
) -> None:
    """Draw the frontier.

    Parameters
    ----------
    metrics_parquet: the tidy table of measurements.
    published_csv: the published figures (`resources/paper_figures.csv`), or None for none.
    out_pdf: all pages. out_png: the first page, 200 dpi. The same table gives the same bytes.

    Raises
    ------
    UserError: a table is missing, unreadable, without a needed column, or holds no SAE.
    """
    frame = read_metrics(metrics_parquet)
    published = read_published(published_csv)
    with house_style():
        pages = [page for kind in captions.KINDS for page in _pages(kind, frame, published)]
        nothing = Sheet("The storage–fidelity frontier", missing=["any trained SAE"])
        write_pages(pages or [compose(nothing)], out_pdf, out_png)


def _pages(kind: captions.Kind, frame: pd.DataFrame, published: pd.DataFrame) -> list[Figure]:
    """The pages of one kind; none where a supplementary kind has nothing to show, or no SAE is measured."""
    found = settings(frame)
    rows = [_row(kind, frame, published, setting, found) for setting in found]
    if kind.supplementary:
        rows = [row for row in rows if _worth_showing(kind, row)]
    chunks = [rows[start : start + ROWS_PER_PAGE] for start in range(0, len(rows), ROWS_PER_PAGE)]
    looks = looks_for(frame["support"].unique(), by_pursuit=kind.only_inference is not None)
    return [_page(kind, chunk, looks, number + 1, len(chunks)) for number, chunk in enumerate(chunks)]


def _row(
    kind: captions.Kind, frame: pd.DataFrame, published: pd.DataFrame, setting: Setting, found: list[Setting]
) -> Row:
    alike = [other for other in found if replace(other, n=setting.n) == setting]
    runs = runs_of(frame, setting, one_n=len(alike) == 1)
    panels = [list(filter(kind.shows, series(runs, metric))) for metric in kind.metrics]
    roles = sorted({one.role for panel in panels for one in panel})
    beside = [
        on_scale(panel, list(filter(kind.shows, published_series(published, setting, metric, roles))))
        for metric, panel in zip(kind.metrics, panels, strict=True)
    ]
    return Row(
        setting, (panels[0], panels[1]), (beside[0][0], beside[1][0]), (beside[0][1], beside[1][1]),
        model_cross_entropies(frame, setting),
    )  # fmt: skip


def _worth_showing(kind: captions.Kind, row: Row) -> bool:
    """A supplementary row says something that the main page does not."""
    if kind.only_inference is None:
        return any(point.values for one in row.all_series for point in one.points)
    return len({one.role for one in row.all_series} - {"expander", "dense"}) > 0


def _page(kind: captions.Kind, rows: Sequence[Row], looks: Looks, number: int, of: int) -> Figure:
    notes = [captions.notes(row.setting, row.ours, row.entropies, kind, row.off_scale) for row in rows]
    wrapped = [[line for note in row for line in wrap(note, _TEXT_WIDTH, SMALL)] for row in notes]
    legend = _legend(kind, rows, looks)
    every = [one for row in rows for one in row.all_series]
    caption = wrap(captions.caption(kind, every, _has_published(rows)), _TEXT_WIDTH, SMALL)
    if of > 1:
        caption.append(f"Page {number} of {of} of this kind; the others are in the PDF.")
    title = wrap(kind.title, _TEXT_WIDTH, LARGE, "bold")
    legend_height = 0.147 * -(-len(legend) // 2) + 0.10
    row_heights = [
        _HEADING * len([*heading, *details]) + _PANEL_AND_AXES + _LINE * len(lines) + 0.16
        for (heading, details), lines in zip(map(_headings, rows), wrapped, strict=True)
    ]
    height = (
        _MARGIN + 0.2 * len(title) + 0.08 + sum(row_heights) + legend_height + _LINE * len(caption) + _MARGIN
    )
    figure = new_figure(PAGE_WIDTH, height)
    top = _MARGIN
    _text(figure, title, top, LARGE, 0.2, weight="bold")
    top += 0.2 * len(title) + 0.08
    for row, lines, row_height in zip(rows, wrapped, row_heights, strict=True):
        _draw_row(figure, kind, row, looks, lines, top)
        top += row_height
    figure.legend(
        handles=legend, loc="upper left", bbox_to_anchor=(_MARGIN / PAGE_WIDTH, 1 - top / height), ncols=2,
        borderaxespad=0, borderpad=0, labelspacing=0.55, handlelength=2.6, columnspacing=1.6,
    )  # fmt: skip
    _text(figure, caption, top + legend_height, SMALL, _LINE, colour=MUTED)
    return figure


def _headings(row: Row) -> tuple[list[str], list[str]]:
    heading, details = captions.headings(row.setting)
    return wrap(heading, _TEXT_WIDTH, NORMAL + 1, "bold"), wrap(details, _TEXT_WIDTH, NORMAL)


def _draw_row(
    figure: Figure, kind: captions.Kind, row: Row, looks: Looks, notes: list[str], top: float
) -> None:
    width, height = figure.get_size_inches()
    heading, details = _headings(row)
    _text(figure, heading, top, NORMAL + 1, _HEADING, weight="bold")
    _text(figure, details, top + _HEADING * len(heading) + 0.01, NORMAL, _HEADING)
    panel_top = top + _HEADING * len([*heading, *details]) + _ABOVE_PANEL
    limits = stored_limits([*row.ours, *row.published])
    for place, (ours, published) in enumerate(zip(row.ours, row.published, strict=True)):
        left = _LEFT + place * (PANEL_WIDTH + _GAP)
        bottom = height - panel_top - PANEL_HEIGHT
        place_and_size = (left / width, bottom / height, PANEL_WIDTH / width, PANEL_HEIGHT / height)
        axes = figure.add_axes(place_and_size)
        draw_panel(
            axes, row.setting, ours, published, row.all_series, limits, looks,
            higher_is_better=kind.metrics[place] != "relative_error",
        )  # fmt: skip
        axes.set_ylabel(kind.labels[place])
        if not any(point.values for one in ours for point in one.points):
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=MUTED)
    _text(figure, notes, panel_top + PANEL_HEIGHT + _BELOW_PANEL, SMALL, _LINE)


def _text(
    figure: Figure, lines: Sequence[str], top: float, size: float, leading: float,
    weight: str = "normal", colour: str = INK,
) -> None:  # fmt: skip
    width, height = figure.get_size_inches()
    for position, line in enumerate(lines):
        figure.text(
            _MARGIN / width, 1 - (top + position * leading) / height, line,
            size=size, weight=weight, color=colour, va="top", ha="left",
        )  # fmt: skip


def _legend(kind: captions.Kind, rows: Sequence[Row], looks: Looks) -> list[Line2D]:
    by_pursuit = kind.only_inference is not None
    shown: dict[tuple[str, str, str], Series] = {}
    for row in rows:
        for one in row.all_series:
            shown.setdefault((one.role, one.encoder, one.inference), one)
    handles = [handle(one, captions.series_label(one, by_pursuit), looks) for one in shown.values()]
    points = [point for row in rows for one in row.all_series for point in one.points]
    if any(len(point.values) > 1 for point in points):
        handles.append(mark_handle("o", "one training seed (bar: 95 % interval of the mean)"))
    if any(point.diverged for point in points):
        handles.append(mark_handle("x", "seeds that diverged, not in the mean; count below the panels"))
    if _has_published(rows):
        handles.append(mark_handle("o", "hollow, same shape: published mean [1]", hollow=True))
    return handles


def _has_published(rows: Sequence[Row]) -> bool:
    return any([*row.published, *row.off_scale] != [[], [], [], []] for row in rows)
