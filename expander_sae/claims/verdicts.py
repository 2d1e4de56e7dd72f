"""What comparisons say, each alone and those of a claim together: holds, fails, inconclusive, not run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from expander_sae.claims.comparisons import Planned
from expander_sae.claims.register import Claim, Register
from expander_sae.claims.settings import Setting
from expander_sae.claims.threshold import Interval, Region
from expander_sae.measurements.document_cells import Comparable

HOLDS, FAILS, INCONCLUSIVE, NOT_RUN = "holds", "fails", "inconclusive", "not run"


def one_verdict(where: Region, to_hold: Interval | None, to_fail: Interval | None) -> str:
    """The verdict on one comparison: `to_hold` and `to_fail` are intervals at their own levels."""
    if to_hold is not None and where.contains(to_hold):
        return HOLDS
    if to_fail is not None and where.excludes(to_fail):
        return FAILS
    return INCONCLUSIVE


def joint_verdict(verdicts: Sequence[str], every: bool) -> str:
    """The verdict on a claim about all of its comparisons (`every`) or about at least one."""
    decisive, other = (FAILS, HOLDS) if every else (HOLDS, FAILS)
    if decisive in verdicts:
        return decisive
    if not verdicts or NOT_RUN in verdicts:
        return NOT_RUN
    return other if all(verdict == other for verdict in verdicts) else INCONCLUSIVE


@dataclass(frozen=True)
class Levels:
    """Levels of the two intervals of a comparison.

    single: corrected for the number of claims. family: for the claim's comparisons as well.
    """

    single: float
    family: float


def levels(register: Register, setting: str, comparisons: int) -> Levels:
    """Bonferroni: over the claims of the file, whether they are run or not, and their comparisons.

    A claim decides nothing in a setting whose rows had been read when it was written, and is not counted.
    """
    tests = sum(setting not in claim.known_in for claim in register.claims)
    error = (1 - register.confidence) / max(tests, 1)
    return Levels(1 - error, 1 - error / max(comparisons, 1))


@dataclass(frozen=True)
class Case:
    """A claim in a setting that judges it."""

    register: Register
    claim: Claim
    setting: Setting

    @property
    def plans(self) -> tuple[Planned, ...]:
        """The comparisons that it asks for."""
        return self.claim.plans[self.setting.name]

    @property
    def levels(self) -> Levels:
        """Levels of the intervals of each comparison."""
        return levels(self.register, self.setting.name, len(self.plans))

    @property
    def known(self) -> bool:
        """Whether the setting's rows had been read when the claim was written, so that it tests nothing."""
        return self.setting.name in self.claim.known_in

    def short_of(self, seeds: int) -> bool:
        """Whether so many seeds are too few to decide anything."""
        return not self.claim.point and seeds < self.register.minimum_seeds


@dataclass(frozen=True)
class Judged:
    """One comparison.

    points_to: its verdict before the minimum number of seeds is asked for. deciding: of the two intervals
    the one that gave it; `interval` where neither did. found: the cells that were compared.
    """

    label: str
    verdict: str
    points_to: str
    found: Comparable = field(default_factory=Comparable)
    estimate: float = math.nan
    interval: Interval | None = None
    interval_family: Interval | None = None
    deciding: Interval | None = None
    per_seed: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ruling:
    """The comparisons of a claim in a setting, and what they say together."""

    case: Case
    comparisons: tuple[Judged, ...]

    @cached_property
    def verdict(self) -> str:
        """The verdict on the claim."""
        return joint_verdict([one.verdict for one in self.comparisons], self.case.claim.every)

    @cached_property
    def points_to(self) -> str:
        """The same before the minimum number of seeds is asked for."""
        return joint_verdict([one.points_to for one in self.comparisons], self.case.claim.every)

    @property
    def ran(self) -> list[Judged]:
        """The comparisons whose cells are all in the tables."""
        return [one for one in self.comparisons if one.verdict != NOT_RUN]

    @property
    def too_few(self) -> list[Judged]:
        """The comparisons that have too few seeds to decide; a claim that is decided is so without them."""
        return [one for one in self.ran if self.case.short_of(len(one.per_seed))]

    @property
    def diverged(self) -> list[int]:
        """Seeds of diverged runs."""
        return sorted({seed for one in self.comparisons for seed in one.found.diverged})

    @cached_property
    def deciding(self) -> Judged | None:
        """The comparison on which the verdict hangs: the worst where all must hold, else the best."""
        rank = {FAILS: 0, INCONCLUSIVE: 1, HOLDS: 2}

        def standing(one: Judged) -> tuple[int, int, float]:
            margin = self.case.claim.region.margin(one.estimate)
            return rank[one.verdict], rank[one.points_to], margin if math.isfinite(margin) else -math.inf

        return (min if self.case.claim.every else max)(self.ran, key=standing, default=None)
