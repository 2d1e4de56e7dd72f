"""Where labels go beside their marks, so that no text covers another text or a mark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in inches."""

_EIGHTHS = (0, 8, 2, 6, 14, 10, 4, 12, 1, 7, 15, 9, 3, 5, 11, 13)
_DIRECTIONS = tuple((math.cos(math.pi * step / 8), math.sin(math.pi * step / 8)) for step in _EIGHTHS)
"""Right, left, the corners, above, below, and between them."""
_BESIDE = (0.05, 0.16, 0.27, 0.38)
FAR = 0.15
"""A mark's label that stands further from it than this has a line to it."""

_CLEAR, _CLEAR_LINE = 0.05, 0.2
"""Inches that stay free on the left and right of a label, and of a line's label, so that two are not read as
one."""

_REACHES = (0.07, 0.13, 0.2, 0.28, 0.38, 0.5, 0.65, 0.85, 1.1)


_MARK, _DOT = 0.05, 0.03
"""Inches from a mark's middle to where its line is seen, and between the boxes that stand for that line."""

_STRUCK, _ON_TEXT = 8.0, 50.0
"""How much worse than to cover a part of a line or a mark it is to strike through it, and to cover a text."""


@dataclass(frozen=True)
class Wanted:
    """A label and the points that it may stand beside, the best first.

    Args:
        width, height: of its text in inches.
        anchors: of a mark one point; of a line several.
        sides: 1: above the anchor, −1: below it, in this order; none: anywhere around it.
    """

    width: float
    height: float
    anchors: Sequence[tuple[float, float]]
    sides: Sequence[int] = ()

    def boxes(self) -> Iterable[tuple[float, Box]]:
        """Distance from the anchor, and the box there: nearest first."""
        if self.sides:
            for reach in _BESIDE:
                for side in self.sides:
                    for x, y in self.anchors:
                        yield reach, self._around(x, y + side * (reach + self.height / 2))
            return
        for reach in _REACHES:
            for x, y in self.anchors:
                for right, up in _DIRECTIONS:
                    # The box touches a circle of this reach around the mark.
                    middle = x + right * (reach + self.width / 2), y + up * (reach + self.height / 2)
                    yield reach, self._around(*middle)

    def _around(self, x: float, y: float) -> Box:
        return x - self.width / 2, y - self.height / 2, x + self.width / 2, y + self.height / 2


@dataclass(frozen=True)
class Placed:
    """Where a label stands, and how far from its anchor; `free`: neither it nor its line covers anything."""

    box: Box
    reach: float
    free: bool


def place(wanted: Sequence[Wanted], obstacles: Sequence[Box], room: Box) -> list[Placed | None]:
    """The place of each label, in their order: the first that covers nothing, otherwise the least covered.

    Args:
        obstacles: marks, and whatever else no label may cover.
        room: labels stay inside.

    Returns:
        None for a label that the room cannot hold at all.
    """
    taken = list(obstacles)
    texts: list[Box] = []
    found: list[Placed | None] = []
    for label in wanted:
        best: tuple[float, Placed] | None = None
        for reach, box in label.boxes():
            if box[0] < room[0] or box[1] < room[1] or box[2] > room[2] or box[3] > room[3]:
                continue
            covered = sum(_shared(box, other) for other in taken)
            covered += _ON_TEXT * sum(_shared(box, other) for other in texts)
            if not label.sides and reach > FAR:
                leader = _leader(label.anchors[0], box)
                covered += _STRUCK * sum(_shared(dot, other) for dot in leader for other in taken)
            if best is None or covered < best[0]:
                best = covered, Placed(box, reach, covered == 0)
            if covered == 0:
                break
        found.append(best[1] if best else None)
        if best:
            left, bottom, right, top = best[1].box
            clear = _CLEAR_LINE if label.sides else _CLEAR
            taken.append((left - clear, bottom, right + clear, top))
            texts.append(best[1].box)
            if not label.sides and best[1].reach > FAR:
                taken += _leader(label.anchors[0], best[1].box)
    return found


def end_of_leader(anchor: tuple[float, float], box: Box) -> tuple[float, float]:
    """The point of a box that is nearest to an anchor."""
    return min(max(anchor[0], box[0]), box[2]), min(max(anchor[1], box[1]), box[3])


def _leader(anchor: tuple[float, float], box: Box) -> list[Box]:
    """Small boxes along the line from a mark to its label, outside of the mark."""
    end = end_of_leader(anchor, box)
    length = math.dist(anchor, end)
    steps = max(int((length - _MARK) / _DOT), 0)
    found = []
    for step in range(steps + 1):
        along = min((_MARK + step * _DOT) / length, 1.0) if length else 1.0
        x, y = (start + along * (stop - start) for start, stop in zip(anchor, end, strict=True))
        found.append((x - _DOT / 4, y - _DOT / 4, x + _DOT / 4, y + _DOT / 4))
    return found


def _shared(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return across * up if across > 0 and up > 0 else 0.0
