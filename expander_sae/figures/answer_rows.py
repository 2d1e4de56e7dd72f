"""What to take for the bytes and the time that one has: the rows of the table of choices.

The rule is that of `measurements/choice.py`. Only trained dictionaries are taken; the best that nobody
trained and that fits the same budget stands beside each, read in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from expander_sae.figures.candidates import CE, ERROR, SELECTIVITY, Candidate
from expander_sae.measurements.choice import choose, compared
from expander_sae.measurements.pareto import Option

BUDGETS = (40e3, 150e3, 500e3, math.inf)
"""Bytes on disk; a kB has 1,000."""


@dataclass(frozen=True)
class Purpose:
    """What is asked for: the metric that decides, and the inferences that are allowed."""

    name: str
    words: str
    metric: str
    inferences: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A budget and a purpose, and what they buy.

    Args:
        taken: None where no trained dictionary fits.
        alike: of the smaller ones that are read in the same way and not told apart from it the smallest, and
            where that is of its own kind the nearest in value of another kind too.
        told: whether any interval is known by which it could be.
        untrained: the best that nobody trained; `verdict` says what it is beside `taken`.
    """

    budget: float
    purpose: Purpose
    taken: Candidate | None
    alike: tuple[Candidate, ...]
    told: bool
    untrained: Candidate | None
    verdict: str


def purposes(candidates: Sequence[Candidate]) -> list[Purpose]:
    """Fidelity by the encoder, fidelity by OMP, and features, where they were measured of trained ones.

    Fidelity is CE recovered, or the relative error where no cross-entropy was measured.
    """

    def measured(metric: str, inferences: Sequence[str]) -> bool:
        return any(one.inference in inferences and metric in one.estimates for one in candidates
                   if one.group == "trained")  # fmt: skip

    found = []
    for inference, words in (("encoder", "fidelity (encoder)"), ("omp", "fidelity (OMP)")):
        metric = CE if measured(CE, (inference,)) else ERROR
        found.append(Purpose(f"fidelity_{inference}", words, metric, (inference,)))
    found.append(Purpose("features", "features", SELECTIVITY, ("encoder", "omp")))
    return [one for one in found if measured(one.metric, one.inferences)]


def answers(candidates: Sequence[Candidate], budgets: Sequence[float] = BUDGETS) -> list[Row]:
    """The rows, by budget; none where nothing trained has bytes and a metric."""
    asked = purposes(candidates)
    return [_answer(candidates, budget, purpose) for budget in budgets for purpose in asked]


def _answer(candidates: Sequence[Candidate], budget: float, purpose: Purpose) -> Row:
    allowed = [one for one in candidates if one.inference in purpose.inferences]
    by_key = {one.key: one for one in allowed}

    def read_alike(first: Option, second: Option) -> bool:
        return by_key[first.name].inference == by_key[second.name].inference

    trained, untrained = (
        choose((one.option(purpose.metric) for one in allowed if one.group == group), budget, read_alike)
        for group in ("trained", "untrained")
    )
    floor = by_key[untrained.taken.name] if untrained else None
    if trained is None:
        return Row(budget, purpose, None, (), False, floor, "none")
    taken = by_key[trained.taken.name]
    return Row(
        budget,
        purpose,
        taken,
        _named(taken, [by_key[option.name] for option in trained.alike], purpose.metric),
        trained.told,
        floor,
        compared(trained.taken, untrained.taken if untrained else None),
    )


def _named(taken: Candidate, alike: Sequence[Candidate], metric: str) -> tuple[Candidate, ...]:
    """The smallest, and the nearest of another kind where the smallest is of the kind that was taken.

    Args:
        alike: the smallest first.
    """
    others = [one for one in alike if one.cell.support != taken.cell.support]
    if not others or alike[0] in others:
        return tuple(alike[:1])
    nearest = min(others, key=lambda one: abs(one.mean(metric) - taken.mean(metric)))
    return alike[0], nearest
