"""The rule by which a budget of bytes chooses a dictionary.

Of the options that fit, the one of the largest value is taken; of equal ones the smallest, then the first
by name. What was not measured is never taken. Two values are *told apart* where they differ by more than the
root of the sum of their squared half intervals; a half that is not known counts as 0 beside one that is, and
where neither is known nothing is said. The smallest smaller option that is not told apart from the one
taken is named beside it: it may be as good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from expander_sae.measurements.pareto import Option


@dataclass(frozen=True)
class Choice:
    """What a budget buys.

    Args:
        taken: the best that fits.
        alike: the smallest of the smaller options that is not told apart from it; None where there is none.
        told: whether any interval was known by which options could be told apart from it.
    """

    taken: Option
    alike: Option | None
    told: bool


def choose(options: Iterable[Option], budget: float = math.inf) -> Choice | None:
    """The choice for a budget in bytes; None where nothing that was measured fits."""
    fitting = [one for one in options if one.measured and one.size <= budget]
    if not fitting:
        return None
    taken = min(fitting, key=lambda one: (-one.value, one.size, one.name))
    smaller = [one for one in fitting if one.size < taken.size]
    alike = [one for one in smaller if apart(taken, one) is False]
    smallest = min(alike, key=lambda one: (one.size, -one.value, one.name), default=None)
    return Choice(taken, smallest, math.isfinite(taken.half) or any(math.isfinite(o.half) for o in smaller))


def apart(first: Option, second: Option) -> bool | None:
    """Whether two values are told apart; None where neither interval is known and they differ."""
    difference = abs(first.value - second.value)
    halves = [half for half in (first.half, second.half) if math.isfinite(half)]
    if not halves:
        return None if difference else False
    return difference > math.hypot(*halves)


def compared(trained: Option, untrained: Option | None) -> str:
    """What the best untrained option is beside a trained one: ``better``, ``as good``, ``worse`` or ``none``.

    Without any interval the larger value is the better one.
    """
    if untrained is None:
        return "none"
    if untrained.value == trained.value or apart(trained, untrained) is False:
        return "as good"
    return "better" if untrained.value > trained.value else "worse"
