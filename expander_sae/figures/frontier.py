"""The frontier: which dictionary to use, then CE recovered and relative error against learned decoder values.

First the page of choices of each place, where the tables have more than float32 and fidelity (`answer.py`).
Then, three rows to a page, one row for every place, budget and k. Then, where the tables have
them, the same rows with the two other baselines of CE recovered, and with every support decoded by OMP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.lines import Line2D

from expander_sae.figures import frontier_words as words
from expander_sae.figures.answer import choices
from expander_sae.figures.frontier_panel import FrontierPanel, on_scale, stored_limits
from expander_sae.figures.frontier_series import (
    Point,
    Series,
    in_drawing_order,
    measured_series,
    published_series,
)
from expander_sae.figures.layout import Panel, Section, Sheet
from expander_sae.figures.plots import mark_key
from expander_sae.figures.style import MUTED, Looks, looks_for, marker_style
from expander_sae.masks.supports import followed
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View

ROWS_PER_PAGE = 3


@dataclass(frozen=True)
class Row:
    """Two panels: the series of each, ours and published, and published points left out."""

    view: View
    ours: tuple[list[Series], ...]
    published: tuple[list[Series], ...]
    off_scale: tuple[list[tuple[Series, Point]], ...]

    @property
    def every(self) -> list[Series]:
        """Ours, of both panels, in drawing order."""
        return in_drawing_order([one for panel in self.ours for one in panel])

    @property
    def points(self) -> list[Point]:
        """Those of all of ours."""
        return [point for one in self.every for point in one.points]

    @property
    def has_published(self) -> bool:
        """Whether anything is published, on the panel or off."""
        return any([*self.published, *self.off_scale])


def frontier(results: Results) -> list[Sheet]:
    """The pages; none where no autoencoder is measured."""
    sheets = choices(results)
    for kind in words.KINDS:
        every = [_row(kind, view, results.every_view) for view in results.every_view]
        # Where all is measured by a pursuit alone, the page of encoders has nothing to show.
        rows = [row for row in every if row.points or row.has_published]
        if kind.supplementary:
            rows = [row for row in rows if _worth_showing(kind, row)]
        looks = looks_for(results.index.supports, by_pursuit=kind.only_inference is not None)
        pages = [rows[start : start + ROWS_PER_PAGE] for start in range(0, len(rows), ROWS_PER_PAGE)]
        sheets += [_sheet(kind, page, looks, number + 1, len(pages)) for number, page in enumerate(pages)]
    return sheets


def _row(kind: words.Kind, view: View, views: Sequence[View]) -> Row:
    alike = [one for one in views if replace(one, place=one.place._replace(n=view.place.n)) == view]
    panels = [
        list(filter(kind.shows, measured_series(view, metric, one_n=len(alike) == 1)))
        for metric in kind.metrics
    ]
    roles = {one.role for panel in panels for one in panel}
    beside = [
        on_scale(panel, list(filter(kind.shows, published_series(view, metric, roles))))
        for metric, panel in zip(kind.metrics, panels, strict=True)
    ]
    return Row(view, tuple(panels), *zip(*beside, strict=True))


def _worth_showing(kind: words.Kind, row: Row) -> bool:
    """A supplementary row says something that the main page does not."""
    if kind.only_inference is None:
        return any(point.estimate for point in row.points)
    return len({one.role for one in row.every}.difference(followed())) > 0


def _sheet(kind: words.Kind, rows: Sequence[Row], looks: Looks, number: int, of: int) -> Sheet:
    caption = [words.caption(kind, [one for row in rows for one in row.every],
                             any(row.has_published for row in rows))]  # fmt: skip
    if of > 1:
        caption.append(f"Page {number} of {of} of this kind; the others are in the PDF.")
    sections = [_section(kind, row, looks) for row in rows]
    return Sheet(kind.title, legend=_legend(kind, rows, looks), notes=caption, sections=sections)


def _section(kind: words.Kind, row: Row, looks: Looks) -> Section:
    limits = stored_limits([*row.ours, *row.published])
    panels = [
        Panel(
            "", FrontierPanel(row.view.place, ours, published, row.every, limits, looks,
                              higher_is_better=metric != "relative_error"),
            "learned decoder values (log scale)", label, height=2.45, left=0.74, above=0.55,
        )
        for ours, published, metric, label in zip(
            row.ours, row.published, kind.metrics, kind.labels, strict=True
        )
    ]  # fmt: skip
    return Section(panels, *words.headings(row.view), words.notes(row.view, row.every, kind, row.off_scale))


def _legend(kind: words.Kind, rows: Sequence[Row], looks: Looks) -> list[Line2D]:
    by_pursuit = kind.only_inference is not None
    shown: dict[tuple[str, str, str], Series] = {}
    for row in rows:
        for one in row.every:
            shown.setdefault((one.role, one.encoder, one.inference), one)
    found = []
    for one in shown.values():
        style = looks(one.role, one.inference)
        found.append(Line2D([], [], color=style.colour, ls=style.line, lw=style.width,
                            label=words.series_label(one, by_pursuit),
                            **marker_style(style, one.encoder)))  # fmt: skip
    estimates = [point.estimate for row in rows for point in row.points]
    if any(len(estimate.values) > 1 for estimate in estimates):
        label = "one training seed (bar: 95 % interval of the mean)"
        found.append(mark_key(label, marker="o", ms=2.4, mew=0.6))
    if any(estimate.diverged for estimate in estimates):
        label = "seeds that diverged, not in the mean; count below the panels"
        found.append(mark_key(label, marker="x", mew=1.3))
    if any(row.has_published for row in rows):
        label = "hollow, same shape: published mean [1]"
        found.append(mark_key(label, marker="o", ms=6.5, mfc="none", color=MUTED))
    return found
