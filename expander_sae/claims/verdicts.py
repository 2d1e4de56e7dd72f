"""What comparisons say, each alone and those of a claim together: holds, fails, inconclusive, not run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from expander_sae.claims.comparisons import Planned
from expander_sae.claims.register import Claim, Register
from expander_sae.claims.settings import Setting
from expander_sae.claims.threshold import Interval, Region

HOLDS, FAILS, INCONCLUSIVE, NOT_RUN = "holds", "fails", "inconclusive", "not run"


def one_verdict(where: Region, to_hold: Interval | None, to_fail: Interval | None) -> str:
    """The verdict on one comparison: `to_hold` and `to_fail` are intervals at their own levels."""
    if to_hold is not None and where.contains(to_hold):
        return HOLDS
    return FAILS if to_fail is not None and where.excludes(to_fail) else INCONCLUSIVE


def joint_verdict(verdicts: Sequence[str], every: bool) -> str:
    """The verdict on a claim about all of its comparisons (`every`) or about at least one."""
    decisive, other = (FAILS, HOLDS) if every else (HOLDS, FAILS)
    if decisive in verdicts:
        return decisive
    if not verdicts or NOT_RUN in verdicts:
        return NOT_RUN
    return other if all(verdict == other for verdict in verdicts) else INCONCLUSIVE


@dataclass(frozen=True)
class Case:
    """A claim in a setting that judges it."""

    register: Register
    claim: Claim
    setting: Setting

    @property
    def plans(self) -> tuple[Planned, ...]:
        return self.claim.plans[self.setting.name]

    @property
    def known(self) -> bool:
        """Whether the setting's rows had been read when the claim was written, so that it tests nothing."""
        return self.setting.whole.name in self.claim.known_in

    @property
    def error(self) -> float:
        """What each claim may err by: Bonferroni, over the claims of the file, run or not.

        Those that test nothing in this setting are not counted. A part counts with its whole.
        """
        tests = sum(self.setting.whole.name not in claim.known_in for claim in self.register.claims)
        return (1 - self.register.confidence) / max(tests, 1)

    @property
    def level(self) -> float:
        """Level of an interval, corrected for the number of claims."""
        return 1 - self.error

    @property
    def level_family(self) -> float:
        """The same, corrected for the claim's comparisons as well."""
        return 1 - self.error / max(len(self.plans), 1)

    def short_of(self, seeds: int) -> bool:
        """Whether so many seeds are too few to decide anything."""
        return not self.claim.point and seeds < self.register.minimum_seeds


@dataclass(frozen=True)
class Spread:
    """A statistic by seed; `sd` is None for one seed."""

    sd: float | None
    min: float
    max: float
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What was measured; nothing of it where a cell is missing.

    The intervals are at `Case.level` and `Case.level_family`; `interval_deciding` is the one of the two that
    gave the verdict, or `interval` where neither did.
    """

    estimate: float = math.nan
    interval: Interval | None = None
    interval_family: Interval | None = None
    interval_deciding: Interval | None = None
    seeds: int = 0
    documents: int = 0
    spread: Spread | None = None


@dataclass(frozen=True, kw_only=True)
class Judged(Numbers):
    """One comparison; `points_to` is its verdict before the minimum number of seeds is asked for."""

    label: str = ""
    verdict: str = NOT_RUN
    points_to: str = NOT_RUN
    missing: tuple[str, ...] = ()
    diverged_seeds: tuple[int, ...] = ()
    seeds_left_out: tuple[int, ...] = ()
    documents_left_out: int = 0


@dataclass(frozen=True)
class Ruling:
    """The comparisons of a claim in a setting, and what they say together."""

    case: Case
    comparisons: tuple[Judged, ...]

    @cached_property
    def verdict(self) -> str:
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
    def fewest(self) -> int | None:
        """The fewest seeds of a comparison, where they are too few to decide; else None."""
        return min((one.seeds for one in self.ran if self.case.short_of(one.seeds)), default=None)

    @property
    def diverged(self) -> list[int]:
        """Seeds of diverged runs."""
        return sorted({seed for one in self.comparisons for seed in one.diverged_seeds})

    @cached_property
    def deciding(self) -> Judged | None:
        """The comparison on which the verdict hangs: the worst where all must hold, else the best."""
        rank = {FAILS: 0, INCONCLUSIVE: 1, HOLDS: 2}

        def standing(one: Judged) -> tuple[int, int, float]:
            margin = self.case.claim.region.margin(one.estimate)
            return rank[one.verdict], rank[one.points_to], margin if math.isfinite(margin) else -math.inf

        return (min if self.case.claim.every else max)(self.ran, key=standing, default=None)
