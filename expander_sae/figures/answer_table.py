"""The table of choices as part of a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from expander_sae.figures.answer_rows import Row
from expander_sae.figures.answer_words import alike_text, budget_text, floor_name, read_name
from expander_sae.figures.candidate_costs import microseconds, training_seconds
from expander_sae.figures.candidate_words import Names, seconds_text, size_text
from expander_sae.figures.candidates import CE, ERROR, SELECTIVITY, Candidate
from expander_sae.figures.plots import height_of, width_of
from expander_sae.figures.style import FAINT, INK, MUTED, SMALL, VERMILLION, Looks, text_width

LINE = 0.142
"""Height of a line in inches."""

HEAD = ("if you have", "and want", "take", "on disk", "CE rec.", "error", "select.", "per token", "to train")
_GAP = 0.035
"""Least inches between two columns."""

_TAKE, _FIRST_VALUE = 2, 4
_VALUES = (CE, ERROR, SELECTIVITY)
_DASH = "–"
_READ = {"encoder": " (by the encoder)", "omp": " (by OMP)"}


@dataclass(frozen=True)
class AnswerTable:
    """Draws the rows, under each what nobody trained gives; what a purpose is decided by is bold."""

    rows: Sequence[Row]
    names: Names
    looks: Looks

    @property
    def height(self) -> float:
        """Inches that it takes."""
        floors = sum(row.untrained is not None for row in self.rows)
        return LINE * (len(self.rows) + floors + 1) + 0.05

    def cells(self, row: Row) -> list[str]:
        """The texts of a row."""
        return [budget_text(row.budget), row.purpose.words, self._named(row), *_measured(row.taken)]

    def floor(self, row: Row) -> list[str]:
        """The texts of the line below it; none without anything untrained."""
        if row.untrained is None:
            return []
        said = {"none": "", "worse": ""}.get(row.verdict, f": {row.verdict}")
        return ["", "nobody trained", floor_name(row, self.names) + said, *_measured(row.untrained)]

    def _named(self, row: Row) -> str:
        if row.taken is None:
            return "nothing fits"
        return read_name(row.taken, row.purpose, self.names) + (" †" if row.alike else "")

    def notes(self) -> list[str]:
        """The smaller dictionaries that are not told apart from the one taken."""
        found = [
            f"{budget_text(row.budget)}, {row.purpose.words}"
            f"{_READ[row.taken.inference] if len(row.purpose.inferences) > 1 else ''}: "
            f"{alike_text(row, self.names)}"
            for row in self.rows
            if row.taken and row.alike
        ]
        said = "† The intervals do not tell a smaller one, read in the same way, apart from it"
        return [f"{said}: {'; '.join(found)}."] if found else []

    def __call__(self, axes: Axes) -> None:
        axes.set_axis_off()
        width, height = width_of(axes), height_of(axes)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        texts = [(self.cells(row), self.floor(row)) for row in self.rows]
        lefts = _lefts([list(HEAD), *(line for pair in texts for line in pair if line)], width)
        for left, word in zip(lefts, HEAD, strict=False):
            axes.text(left, LINE / 2, word, fontsize=SMALL, color=MUTED, va="center")
        top, before = LINE, None
        for row, (line, floor) in zip(self.rows, texts, strict=True):
            new = row.budget != before
            if new:
                axes.plot([0, width], [top, top], color=FAINT, lw=0.6, clip_on=False)
            self._draw_row(axes, row, line if new else ["", *line[1:]], lefts, top + LINE / 2)
            if floor:
                top += LINE
                _draw_floor(axes, row, floor, lefts, top + LINE / 2)
            top, before = top + LINE, row.budget

    def _draw_row(
        self, axes: Axes, row: Row, line: Sequence[str], lefts: Sequence[float], middle: float
    ) -> None:
        for column, (left, text) in enumerate(zip(lefts, line, strict=False)):
            colour, bold = INK, column in (0, _decides(row))
            if column == _TAKE and row.taken:
                colour, bold = self.looks(row.taken.role, "encoder").colour, True
            axes.text(left, middle, text, fontsize=SMALL, color=colour, va="center",
                      weight="bold" if bold else "normal")  # fmt: skip


def _draw_floor(axes: Axes, row: Row, line: Sequence[str], lefts: Sequence[float], middle: float) -> None:
    """In red where training bought nothing."""
    loses = row.verdict in ("better", "as good")
    for column, (left, text) in enumerate(zip(lefts, line, strict=False)):
        bold = loses and column in (_TAKE, _decides(row))
        axes.text(left, middle, text, fontsize=SMALL, color=VERMILLION if bold else MUTED, va="center",
                  weight="bold" if bold else "normal")  # fmt: skip


def _decides(row: Row) -> int:
    """The column of the metric that decides."""
    return _FIRST_VALUE + _VALUES.index(row.purpose.metric)


def _measured(one: Candidate | None) -> list[str]:
    """Bytes, metrics and times."""
    if one is None:
        return [_DASH] * (len(HEAD) - _TAKE - 1)
    return [size_text(one.size), *(_number(one, metric) for metric in _VALUES), *_time(one)]


def _lefts(lines: Sequence[Sequence[str]], width: float) -> list[float]:
    """Where columns begin: each as wide as its widest text, the rest shared between them.

    Without room for all of them the last ones, which are times, are left out.
    """
    widths = [max(text_width(line[column], SMALL, _weight(column)) for line in lines)
              for column in range(len(HEAD))]  # fmt: skip
    while sum(widths) + _GAP * (len(widths) - 1) > width and len(widths) > _FIRST_VALUE + len(_VALUES):
        widths.pop()
    gap = (width - sum(widths)) / (len(widths) - 1)
    return [sum(widths[:column]) + gap * column for column in range(len(widths))]


def _weight(column: int) -> str:
    """The heaviest weight in a column."""
    values = range(_FIRST_VALUE, _FIRST_VALUE + len(_VALUES))
    return "bold" if column in (0, _TAKE, *values) else "normal"


def _number(one: Candidate, metric: str) -> str:
    value = one.mean(metric)
    return f"{value:.3f}".replace("-", "−") if math.isfinite(value) else _DASH


def _time(one: Candidate) -> tuple[str, str]:
    token, training = microseconds(one), training_seconds(one)
    return (
        _DASH if token is None else seconds_text(token / 1e6),
        _DASH if training is None else seconds_text(training) if training else "none",
    )
