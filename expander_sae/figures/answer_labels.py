"""What is written into a panel of the page of choices: names at marks, and words along lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes

from expander_sae.figures.label_places import FAR, Box, Placed, Wanted, end_of_leader
from expander_sae.figures.style import SMALL, text_width

_LINE = 0.1
"""Height of a line of the smallest text in inches."""


@dataclass(frozen=True)
class Frame:
    """Where data lie in a panel, in inches from its lower left."""

    sizes: tuple[float, float]
    heights: tuple[float, float]
    width: float
    height: float

    def at(self, size: float, height: float) -> tuple[float, float]:
        across = math.log(size / self.sizes[0]) / math.log(self.sizes[1] / self.sizes[0])
        up = (height - self.heights[0]) / (self.heights[1] - self.heights[0])
        return across * self.width, up * self.height


@dataclass(frozen=True)
class Label:
    """A label: of a mark, which has one anchor, or of a line; a `spare` one stands only where it is free."""

    text: str
    colour: str
    weight: str
    anchors: Sequence[tuple[float, float]]
    sides: tuple[int, ...] = ()
    spare: bool = False

    @property
    def wanted(self) -> Wanted:
        return Wanted(text_width(self.text, SMALL, self.weight), _LINE, self.anchors, self.sides)

    def write(self, axes: Axes, placed: Placed, panel: Frame) -> None:
        """The text, and a thin line to its mark where that is not right beside it."""
        left, bottom, right, top = placed.box
        middle = (left + right) / 2 / panel.width, (bottom + top) / 2 / panel.height
        axes.text(*middle, self.text, transform=axes.transAxes, ha="center", va="center", fontsize=SMALL,
                  color=self.colour, weight=self.weight, zorder=6)  # fmt: skip
        if not self.sides and placed.reach > FAR:
            x, y = self.anchors[0]
            across, up = end_of_leader((x, y), placed.box)
            axes.plot([x / panel.width, across / panel.width], [y / panel.height, up / panel.height],
                      color=self.colour, lw=0.5, transform=axes.transAxes, zorder=3)  # fmt: skip


def covered(steps: Sequence[tuple[float, float]]) -> list[Box]:
    """The boxes of a line of steps."""
    found = []
    for (left, y), (right, after) in pairwise(steps):
        found.append((left, y - 0.008, right, y + 0.008))
        found.append((right - 0.008, min(y, after), right + 0.008, max(y, after)))
    return found


def along(steps: Sequence[tuple[float, float]], words: str) -> list[tuple[float, float]]:
    """Middles of a text on a line of steps, from the right to the left, where it stands on one step."""
    wide = text_width(words, SMALL, "bold")
    found = []
    for (left, y), (right, _) in reversed(list(pairwise(steps))):
        x = right - wide / 2 - 0.03
        while x - wide / 2 >= left:
            found.append((x, y))
            x -= 0.1
    return found
