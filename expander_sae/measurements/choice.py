"""The rule by which a budget of bytes chooses a dictionary.

Of the options that fit, the one of the largest value is taken; of equal ones the smallest, then the first
by name. What was not measured is never taken. Two values are *told apart* where they differ by more than the
root of the sum of their squared half intervals; a half that is not known counts as 0 beside one that is, and
where neither is known nothing is said. Smaller options that are not told apart from the one taken stand
beside it: they may be as good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from expander_sae.measurements.pareto import Option

UNKNOWN = "one seed: not known"
"""What is said of two values that differ where neither has an interval."""


@dataclass(frozen=True)
class Choice:
    """What a budget buys.

    Args:
        taken: the best that fits.
        alike: the smaller options that are not told apart from it, the smallest first.
        told: whether any interval was known by which options could be told apart from it.
    """

    taken: Option
    alike: tuple[Option, ...]
    told: bool


def choose(
    options: Iterable[Option],
    budget: float = math.inf,
    comparable: Callable[[Option, Option], bool] = lambda taken, one: True,
) -> Choice | None:
    """The choice for a budget in bytes; None where nothing that was measured fits.

    Args:
        comparable: whether an option may stand beside the one taken as one that may be as good.
    """
    fitting = [one for one in options if one.measured and one.size <= budget]
    if not fitting:
        return None
    taken = min(fitting, key=lambda one: (-one.value, one.size, one.name))
    smaller = [one for one in fitting if one.size < taken.size and comparable(taken, one)]
    alike = sorted(
        (one for one in smaller if apart(taken, one) is False),
        key=lambda one: (one.size, -one.value, one.name),
    )
    told = math.isfinite(taken.half) or any(math.isfinite(one.half) for one in smaller)
    return Choice(taken, tuple(alike), told)


def apart(first: Option, second: Option) -> bool | None:
    """Whether two values are told apart; None where neither interval is known and they differ."""
    difference = abs(first.value - second.value)
    halves = [half for half in (first.half, second.half) if math.isfinite(half)]
    if not halves:
        return None if difference else False
    return difference > math.hypot(*halves)


def compared(trained: Option, untrained: Option | None) -> str:
    """What the best untrained option is beside a trained one: ``better``, ``as good``, ``worse``, or ``none``
    where there is none; `UNKNOWN` where neither interval is known and they differ."""
    if untrained is None:
        return "none"
    told = apart(trained, untrained)
    if told is None:
        return UNKNOWN
    if not told:
        return "as good"
    return "better" if untrained.value > trained.value else "worse"
