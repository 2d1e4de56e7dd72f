"""A figure as a sheet: title, panels, legend and notes, laid out for a page or for one column.

What is drawn and how it is laid out are apart, so that every figure exists twice: as wide as a page,
two panels abreast, and as wide as a column, one panel below the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from expander_sae.figures.style import (
    COLUMN_WIDTH,
    INK,
    LARGE,
    MUTED,
    NORMAL,
    PAGE_WIDTH,
    SMALL,
    new_figure,
    wrap,
)


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `draw` is given the axes; `height` in inches; `wide` takes a whole page's width.

    Args:
        left: inches left of the axes, for labels of categories.
        above: inches above them.
        below: inches below them, for the ticks and the label of the x axis.
    """

    title: str
    draw: Callable[[Axes], None]
    xlabel: str = ""
    ylabel: str = ""
    height: float = 1.95
    left: float = 0.66
    wide: bool = False
    above: float = 0.12
    below: float = 0.42


@dataclass(frozen=True)
class Section:
    """Panels that have a heading and notes of their own, where a page shows several places."""

    panels: Sequence[Panel]
    heading: str = ""
    details: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Sheet:
    """A figure. `missing` names what the tables do not hold; without panels nothing else is drawn.

    Args:
        sections: instead of `panels`.
    """

    title: str
    subtitle: str = ""
    panels: Sequence[Panel] = ()
    legend: Sequence[Artist] = ()
    notes: Sequence[str] = ()
    missing: Sequence[str] = ()
    legend_columns: int = 2
    sections: Sequence[Section] = ()

    @property
    def remarks(self) -> list[str]:
        """Notes, and what is missing as the last of them."""
        missing = list(dict.fromkeys(self.missing))
        return [*self.notes, *(["Not measured: " + "; ".join(missing) + "."] if missing else [])]

    @property
    def drawn(self) -> list[Panel]:
        """The panels of all sections."""
        return [*self.panels, *(panel for section in self.sections for panel in section.panels)]


_MARGIN, _RIGHT, _LINE = 0.12, 0.12, 0.135
_TITLED = 0.27


class _Page:
    """What stands on a page from top to bottom; drawn when all is known, since that gives the height."""

    def __init__(self, width: float) -> None:
        self.width, self.top = width, _MARGIN
        self._draws: list[Callable[[Figure], None]] = []

    def text(self, text: str, size: float = SMALL, leading: float = _LINE, **style: Any) -> None:
        """Lines of at most the page's width."""
        for line in wrap(text, self.width - 2 * _MARGIN, size, style.get("weight", "normal")):
            self._draws.append(partial(_draw_text, line=line, top=self.top, size=size, **style))
            self.top += leading

    def panels(self, row: Sequence[Panel], abreast: int) -> None:
        """Panels side by side."""
        above = max(max(panel.above, _TITLED if panel.title else 0.0) for panel in row)
        share = self.width / abreast
        for place, panel in enumerate(row):
            corner = (place * share + panel.left, self.top + above + panel.height)
            across = share - panel.left - _RIGHT
            self._draws.append(partial(_draw_panel, panel=panel, corner=corner, across=across))
        self.top += max(panel.height for panel in row) + above + max(panel.below for panel in row)

    def legend(self, handles: Sequence[Artist], columns: int) -> None:
        """One legend for all panels."""
        self._draws.append(partial(_draw_legend, handles=handles, top=self.top, columns=columns))
        self.top += 0.142 * -(-len(handles) // columns) + 0.08

    def figure(self) -> Figure:
        figure = new_figure(self.width, self.top + _MARGIN)
        for draw in self._draws:
            draw(figure)
        return figure


def _draw_text(figure: Figure, line: str, top: float, **style: Any) -> None:
    width, height = figure.get_size_inches()
    style = {"color": INK, "va": "top", "ha": "left", **style}
    figure.text(_MARGIN / width, 1 - top / height, line, **style)


def _draw_legend(figure: Figure, handles: Sequence[Artist], top: float, columns: int) -> None:
    width, height = figure.get_size_inches()
    figure.legend(
        handles=list(handles), loc="upper left", bbox_to_anchor=(_MARGIN / width, 1 - top / height),
        ncols=columns, borderaxespad=0, borderpad=0, labelspacing=0.45, handlelength=2.4,
    )  # fmt: skip


def _draw_panel(figure: Figure, panel: Panel, corner: tuple[float, float], across: float) -> None:
    """Draw a panel.

    Args:
        corner: inches from the left and from the top to the axes' lower left.
        across: their width.
    """
    width, height = figure.get_size_inches()
    left, bottom = corner[0] / width, 1 - corner[1] / height
    axes = figure.add_axes((left, bottom, across / width, panel.height / height))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y")
    panel.draw(axes)
    axes.set_title(panel.title, loc="left", fontsize=NORMAL, color=INK, pad=4)
    if panel.xlabel:
        axes.set_xlabel(panel.xlabel)
    if panel.ylabel:
        axes.set_ylabel(panel.ylabel)


def compose(sheet: Sheet, columns: int = 2) -> Figure:
    """Lay a sheet out: `columns` panels abreast on a page, or one in a column."""
    panels = sheet.drawn
    broad = columns > 1 and (len(panels) > 1 or any(panel.wide for panel in panels))
    page = _Page(PAGE_WIDTH if broad else COLUMN_WIDTH)
    page.text(sheet.title, LARGE - 1, 0.175, weight="bold")
    page.text(sheet.subtitle, color=MUTED)
    page.top += 0.06
    for section in sheet.sections or [Section(sheet.panels)]:
        page.text(section.heading, NORMAL + 0.5, 0.155, weight="bold")
        page.text(section.details, NORMAL, 0.155)
        for row in _rows(section.panels, broad):
            page.panels(row, 2 if broad and not row[0].wide else 1)
        for note in section.notes:
            page.text(note)
        page.top += 0.16 if sheet.sections else 0.0
    if sheet.legend:
        page.legend(sheet.legend, sheet.legend_columns if broad else 1)
    for remark in sheet.remarks:
        page.text(remark, color=MUTED)
    return page.figure()


def _rows(panels: Sequence[Panel], broad: bool) -> list[list[Panel]]:
    rows: list[list[Panel]] = []
    for panel in panels:
        if broad and rows and len(rows[-1]) < 2 and not panel.wide and not rows[-1][0].wide:
            rows[-1].append(panel)
        else:
            rows.append([panel])
    return rows
