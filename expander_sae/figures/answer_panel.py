"""One panel of the page of choices: a metric over bytes, with fronts, floors and names on the marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from expander_sae.figures.answer_labels import Frame, Label, along, covered
from expander_sae.figures.candidate_words import Names, size_text
from expander_sae.figures.candidates import CE, ERROR, Candidate, Group
from expander_sae.figures.label_places import Box, place
from expander_sae.figures.plots import height_of, width_of
from expander_sae.figures.style import INK, MUTED, SMALL, Look, Looks
from expander_sae.measurements.choice import choose
from expander_sae.measurements.pareto import front

SHADES = {"encoder": "#D8D8D8", "omp": "#EFEFEF"}
"""What nobody trained reaches: darker by the encoder, lighter by OMP."""

DASHES = {"encoder": "-", "omp": (0, (3.5, 1.6))}
GREY: dict[Group, Look] = {"untrained": Look(MUTED, "d"), "frozen": Look(MUTED, "X")}
"""What was not trained, or in part only, is grey whatever it is."""

_LINED: dict[Group, tuple[dict[str, str], str]] = {
    "trained": ({"encoder": "best by its encoder", "omp": "best by OMP"}, INK),
    "untrained": (
        {"encoder": "nobody trained this (encoder)", "omp": "nobody trained this (OMP)"},
        MUTED,
    ),
}
"""The groups whose fronts are drawn, with the words at their lines."""

_MADE = ("trained", "imported")
"""The groups that somebody trained whole: each kind has its colour."""

_REACH = 0.6
"""Share of the range of trained values by which a worse floor may stretch it."""

_CE_TICKS = (-1.0, 0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)


@dataclass(frozen=True)
class Scale:
    """From a value to its height in the panel; ticks where heights are no plain numbers."""

    metric: str

    def __call__(self, value: float) -> float:
        """CE recovered is spread where it is close to 1."""
        return -math.log10(max(1 - value, 1e-4)) if self.metric == CE else value

    @property
    def bad(self) -> int:
        """The side on which worse values lie: −1 below, 1 above."""
        return 1 if self.metric == ERROR else -1

    def tick(self, axes: Axes) -> None:
        """Label the y axis."""
        if self.metric != CE:
            return
        low, high = axes.get_ylim()
        ticks = [value for value in _CE_TICKS if low <= self(value) <= high]
        axes.yaxis.set_major_locator(FixedLocator([self(value) for value in ticks]))
        labels = {self(value): f"{value:g}" for value in ticks}
        axes.yaxis.set_major_formatter(FuncFormatter(lambda height, _: labels.get(height, "")))


@dataclass(frozen=True)
class AnswerPanel:
    """Draws all candidates that have the metric.

    Args:
        limits: of the x axis in bytes, shared by the panels.
        budgets: sizes that get a vertical line, with their words above the first panel.
        first, last: its place among the panels; the last has the labels of the x axis.
    """

    metric: str
    candidates: Sequence[Candidate]
    names: Names
    limits: tuple[float, float]
    looks: Looks
    budgets: Sequence[float]
    first: bool
    last: bool

    def __call__(self, axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xlim(*self.limits)
        axes.set_ylim(*self._heights())
        self.scale.tick(axes)
        self._size_axis(axes)
        for budget in self.budgets:
            axes.axvline(budget, color=MUTED, lw=0.7, ls=(0, (1, 2)), zorder=1.5)
            if self.first:
                axes.annotate(f"at most {size_text(budget)}", (budget, 1), xycoords=("data", "axes fraction"),
                              xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
                              fontsize=SMALL, color=MUTED)  # fmt: skip
        for inference in ("omp", "encoder"):
            self._shade(axes, inference)
            self._stairs(axes, inference)
        named = {one.key for one in self.named()}
        for one in self.shown:
            self._mark(axes, one, one.key in named)
        self._labels(axes)

    @property
    def scale(self) -> Scale:
        """Its y axis."""
        return Scale(self.metric)

    @property
    def shown(self) -> list[Candidate]:
        """The candidates that have its metric."""
        return [one for one in self.candidates if self.metric in one.estimates]

    def front(self, inference: str, group: Group = "trained") -> list[Candidate]:
        """Those of an inference and a group that no other one of them beats, by size."""
        mine = {one.key: one for one in self.shown
                if one.inference == inference and one.group == group}  # fmt: skip
        return [mine[option.name] for option in front(one.option(self.metric) for one in mine.values())]

    def _height(self, one: Candidate) -> float:
        return self.scale(one.mean(self.metric))

    def _heights(self) -> tuple[float, float]:
        """The y limits: all that is trained or imported, whatever is better, and of worse floors what is not
        far off."""
        bad = self.scale.bad
        every = [bad * self._height(one) for one in self.shown]
        made = [one for one in self.shown if one.group in _MADE]
        trained = [bad * self._height(one) for one in made] or every
        best, worst = min(every), max(trained)
        reach = worst + _REACH * (worst - best)
        floors = [bad * self._height(one) for one in self.floors()]
        worst = max([worst, *(height for height in floors if height <= reach)])
        span = max(worst - best, 0.02)
        ends = bad * (best - 0.16 * span), bad * (worst + 0.2 * span)
        return min(ends), max(ends)

    def _size_axis(self, axes: Axes) -> None:
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0)))
        axes.xaxis.set_minor_locator(LogLocator(base=10, subs=(2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value) if self.last else ""))
        axes.xaxis.set_minor_formatter(NullFormatter())

    def _steps(self, inference: str, group: Group) -> tuple[list[float], list[float]]:
        """The best that any number of bytes gives, to the right edge."""
        members = self.front(inference, group)
        if not members:
            return [], []
        sizes, heights = [one.size for one in members], [self._height(one) for one in members]
        return [*sizes, self.limits[1]], [*heights, heights[-1]]

    def _shade(self, axes: Axes, inference: str) -> None:
        """All that nobody had to train for."""
        sizes, heights = self._steps(inference, "untrained")
        if sizes:
            edge = axes.get_ylim()[1 if self.scale.bad > 0 else 0]
            axes.fill_between(sizes, heights, edge, step="post", color=SHADES[inference], lw=0, zorder=0.5)
            axes.plot(sizes, heights, ls=DASHES[inference], color=MUTED, lw=0.7, drawstyle="steps-post",
                      zorder=1.2)  # fmt: skip

    def _stairs(self, axes: Axes, inference: str) -> None:
        """The front of what was trained."""
        sizes, heights = self._steps(inference, "trained")
        if sizes:
            axes.plot(sizes, heights, ls=DASHES[inference], color=INK, lw=0.9, drawstyle="steps-post",
                      zorder=2.5)  # fmt: skip

    def floors(self) -> list[Candidate]:
        """The best of each support that was not trained, or in part only."""
        found = []
        greys = [one for one in self.shown if one.group not in _MADE]
        for support in dict.fromkeys(one.cell.support for one in greys):
            mine = {one.key: one for one in greys if one.cell.support == support}
            if best := choose(one.option(self.metric) for one in mine.values()):
                found.append(mine[best.taken.name])
        return found

    def named(self) -> list[Candidate]:
        """Members of fronts, all that is imported, and the best of each floor."""
        found = [one for group in _LINED for way in DASHES for one in self.front(way, group)]
        found += [one for one in self.shown if one.group == "imported"]
        return list({one.key: one for one in (*found, *self.floors())}.values())

    def labelled(self) -> list[Candidate]:
        """What is named, and every other expander where there is room for its name."""
        found = self.named()
        named = {one.key for one in found}
        expanders = [one for one in self.shown if one.cell.support == "expander"]
        return [*found, *(one for one in expanders if one.key not in named)]

    def label(self, one: Candidate) -> str:
        """The words at a mark."""
        if one.group != "trained":
            return self.names(one)
        return self.names.on_mark(one) + (" OMP" if one.inference == "omp" else "")

    def outside(self) -> list[Candidate]:
        """What has a name but no place within the limits of the y axis."""
        low, high = self._heights()
        return [one for one in self.named() if not low <= self._height(one) <= high]

    def _mark(self, axes: Axes, one: Candidate, named: bool) -> None:
        """Large where it is named, otherwise small and pale; filled by the encoder, hollow by OMP."""
        look = GREY.get(one.group) or self.looks(one.role, "encoder")
        hollow = one.inference == "omp"
        axes.plot([one.size], [self._height(one)], ls="none", marker=look.marker,
                  ms=look.size if named else 0.62 * look.size, color=look.colour,
                  mfc="white" if hollow else look.colour, mec=look.colour if hollow or not named else "white",
                  mew=1.0 if hollow and named else 0.5, alpha=1.0 if named else 0.55,
                  zorder=4 if named else 2)  # fmt: skip
        middle, half = one.mean(self.metric), one.half(self.metric)
        if named and one.group in _MADE and math.isfinite(half):
            ends = [self.scale(middle - half), self.scale(middle + half)]
            axes.plot([one.size] * 2, ends, color=look.colour, lw=0.9, zorder=3)

    def _labels(self, axes: Axes) -> None:
        """What the fronts are, then the names of the marks."""
        panel = Frame(self.limits, axes.get_ylim(), width_of(axes), height_of(axes))
        texts: list[Label] = []
        lines: list[Box] = []
        for group, (words, colour) in _LINED.items():
            for inference in DASHES:
                steps = [panel.at(*pair) for pair in zip(*self._steps(inference, group), strict=True)]
                if steps:
                    lines += covered(steps)
                    bad = self.scale.bad
                    spots, sides = (
                        along(steps, words[inference]),
                        (-bad, bad) if group == "trained" else (bad,),
                    )
                    texts.append(Label(words[inference], colour, "bold", spots, sides))
        named = {one.key for one in self.named()}
        for one in self.labelled():
            spot = panel.at(one.size, self._height(one))
            if 0 <= spot[1] <= panel.height:
                colour = self.looks(one.role, "encoder").colour if one.group in _MADE else MUTED
                texts.append(Label(self.label(one), colour, "normal", [spot], spare=one.key not in named))
        marks = [panel.at(one.size, self._height(one)) for one in self.shown]
        obstacles = [*lines, *((x - 0.035, y - 0.035, x + 0.035, y + 0.035) for x, y in marks)]
        room = (0.02, 0.02, panel.width - 0.02, panel.height - 0.02)
        for text, placed in zip(texts, place([text.wanted for text in texts], obstacles, room), strict=True):
            if placed and (placed.free or not text.spare):
                text.write(axes, placed, panel)
