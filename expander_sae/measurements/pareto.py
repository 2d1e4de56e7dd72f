"""Which options no other one beats: the least bytes for what they give, the most given for their bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """Something that can be taken.

    Args:
        size: what it costs, in bytes; at least 0.
        value: what it gives; more is better. NaN where it was not measured.
        half: half the 95 % interval of `value`; NaN where it is not known.
        name: breaks ties, and says which option it is; anything that can be sorted.
    """

    size: float
    value: float
    half: float = math.nan
    name: Any = ""

    @property
    def measured(self) -> bool:
        """Whether it can be compared at all."""
        return math.isfinite(self.size) and math.isfinite(self.value)

    def dominates(self, other: Option) -> bool:
        """It costs no more and gives no less, and one of the two is better."""
        no_worse = self.size <= other.size and self.value >= other.value
        return no_worse and (self.size < other.size or self.value > other.value)


def front(options: Iterable[Option]) -> list[Option]:
    """The measured options that no measured one dominates, by size.

    Equal ones do not dominate each other: all of them are members.
    """
    found: list[Option] = []
    for option in sorted(
        (one for one in options if one.measured), key=lambda one: (one.size, -one.value, one.name)
    ):
        last = found[-1] if found else None
        twin = last is not None and (last.size, last.value) == (option.size, option.value)
        if last is None or twin or option.value > last.value:
            found.append(option)
    return found
