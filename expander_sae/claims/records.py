"""The records of claims.json."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

from expander_sae.claims.reasons import reason
from expander_sae.claims.threshold import Interval
from expander_sae.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_RUN, Judged, Ruling

Pair = list[float | None]


class Spread(TypedDict):
    """How the seeds differ; sd is None for one seed, and values are by seed."""

    sd: float | None
    min: float | None
    max: float | None
    values: dict[str, float | None]


class Numbers(TypedDict):
    """The numbers of one comparison, six significant digits each; None where there is none."""

    estimate: float | None
    interval: Pair | None
    interval_family: Pair | None
    interval_deciding: Pair | None
    seeds: int
    documents: int
    spread: Spread | None


class ComparisonRecord(Numbers):
    """One comparison."""

    label: str
    verdict: str
    points_to: str
    missing: list[str]
    diverged_seeds: list[int]
    seeds_left_out: list[int]
    documents_left_out: int


class RulingRecord(Numbers):
    """A claim's comparisons, and the numbers of the one on which the verdict hangs."""

    verdict: str
    points_to: str
    reason: str
    comparisons: list[ComparisonRecord]


class ClaimRecord(RulingRecord):
    """A claim in a setting; `without_diverged` is None where no run diverged."""

    id: str
    setting: str
    sentence: str
    source: str
    statistic: str
    threshold: str
    descriptive: bool
    level: float | None
    level_family: float | None
    without_diverged: RulingRecord | None


def claim_record(ruling: Ruling, converged: Ruling | None) -> ClaimRecord:
    """The record of a claim; `converged`: its ruling without the diverged runs, where there are any.

    A claim whose two verdicts differ is inconclusive.
    """
    case, claim = ruling.case, ruling.case.claim
    record: ClaimRecord = {
        **_ruling_record(ruling),
        "id": claim.id,
        "setting": case.setting.name,
        "sentence": claim.sentence,
        "source": claim.source,
        "statistic": claim.statistic,
        "threshold": str(claim.region),
        "descriptive": False,
        "level": _rounded(case.levels.single),
        "level_family": _rounded(case.levels.family),
        "without_diverged": _ruling_record(converged) if converged else None,
    }
    if converged and converged.verdict != ruling.verdict:
        both = f"with the diverged runs {ruling.verdict}, without them {converged.verdict}"
        record |= {"verdict": INCONCLUSIVE, "reason": f"{both}: {record['reason']}"}
    if converged and converged.points_to != ruling.points_to:
        record["points_to"] = INCONCLUSIVE
    record["descriptive"] = record["verdict"] not in (HOLDS, FAILS) and bool(case.known or ruling.too_few)
    return record


def _ruling_record(ruling: Ruling) -> RulingRecord:
    return {
        **_numbers(ruling.deciding or Judged("", NOT_RUN, NOT_RUN)),
        "verdict": ruling.verdict,
        "points_to": ruling.points_to,
        "reason": reason(ruling),
        "comparisons": [_comparison(one) for one in ruling.comparisons],
    }


def _comparison(one: Judged) -> ComparisonRecord:
    return {
        **_numbers(one),
        "label": one.label,
        "verdict": one.verdict,
        "points_to": one.points_to,
        "missing": list(one.found.missing),
        "diverged_seeds": list(one.found.diverged),
        "seeds_left_out": list(one.found.left_out),
        "documents_left_out": one.found.dropped,
    }


def _numbers(one: Judged) -> Numbers:
    return {
        "estimate": _rounded(one.estimate),
        "interval": _rounded_pair(one.interval),
        "interval_family": _rounded_pair(one.interval_family),
        "interval_deciding": _rounded_pair(one.deciding),
        "seeds": len(one.per_seed),
        "documents": sum((one.found.documents or {}).values()),
        "spread": _spread(one) if one.per_seed else None,
    }


def _spread(one: Judged) -> Spread:
    values = np.array(list(one.per_seed.values()))
    return {
        "sd": _rounded(float(values.std(ddof=1))) if len(values) > 1 else None,
        "min": _rounded(float(values.min())),
        "max": _rounded(float(values.max())),
        "values": {str(seed): _rounded(value) for seed, value in one.per_seed.items()},
    }


def _rounded(value: float) -> float | None:
    """Six significant digits, so that the last bits of a sum do not change the file; None for NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _rounded_pair(pair: Interval | None) -> Pair | None:
    return None if pair is None else [_rounded(bound) for bound in pair]
