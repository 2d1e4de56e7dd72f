"""Verdicts on claims that were written down before the data: holds, fails, inconclusive, not run.

docs/claims.md explains the method. Tables only: nothing here needs weights, activations or torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expander_sae.claims.kinds import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    NOT_RUN,
    Interval,
    joint_verdict,
    one_verdict,
)
from expander_sae.claims.register import Claim, Planned, Register, Setting, read_register
from expander_sae.measurements import tables
from expander_sae.measurements.bootstrap import bootstrap
from expander_sae.measurements.document_cells import Comparable, Tables
from expander_sae.storage.files import write_json

# Missing values that a reason names; the comparisons in claims.json name all of theirs.
_NAMED = 3


@dataclass(frozen=True)
class Levels:
    """Levels of the two intervals of a comparison.

    single: corrected for the number of claims. family: for the claim's comparisons as well.
    """

    single: float
    family: float


@dataclass(frozen=True)
class Judged:
    """One comparison.

    points_to: its verdict before the minimum number of seeds is asked for. deciding: of the two intervals
    the one that gave it; `interval` where neither did.
    """

    label: str
    verdict: str
    points_to: str
    estimate: float = math.nan
    interval: Interval | None = None
    interval_family: Interval | None = None
    deciding: Interval | None = None
    per_seed: Mapping[int, float] = field(default_factory=dict)
    documents: int = 0
    missing: tuple[str, ...] = ()
    diverged: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    dropped: int = 0


def levels(register: Register, setting: str, comparisons: int) -> Levels:
    """Bonferroni: over the claims of the file, whether they are run or not, and their comparisons.

    Those that a setting's rows suggested decide nothing there, and are not counted.
    """
    tests = sum(setting not in claim.known_in for claim in register.claims)
    error = (1 - register.confidence) / max(tests, 1)
    return Levels(1 - error, 1 - error / max(comparisons, 1))


def judge(register: Register, found: Tables) -> list[dict[str, Any]]:
    """One record for each claim in the first setting and in every other that the tables hold."""
    records = []
    for place, setting in enumerate(register.settings):
        if place and not _has_runs(found, setting):
            continue
        records += [_judge_claim(register, claim, setting, found) for claim in register.claims
                    if setting.name in claim.plans]  # fmt: skip
    return records


def write_claims(
    metrics: Path,
    documents: Path,
    register: Path,
    out: Path,
    speed: Path | None = None,
) -> None:
    """Judge the claims of a file by metrics.parquet and documents.parquet, and write claims.json.

    speed: speed.parquet, rows of METRICS, which is not part of metrics.parquet since times differ from
    run to run; left out where it does not exist.
    """
    claims = read_register(register)
    times = tables.read_metrics(speed) if speed is not None and speed.exists() else None
    found = Tables(tables.read_metrics(metrics), tables.read_documents(documents), times)
    write_json(out, judge(claims, found))


def _has_runs(found: Tables, setting: Setting) -> bool:
    runs = found.measured_runs
    chosen = np.ones(len(runs), dtype=bool)
    for column, value in setting.where.items():
        chosen &= (runs[column] == value).to_numpy()
    return bool(chosen.any())


def _judge_claim(register: Register, claim: Claim, setting: Setting, found: Tables) -> dict[str, Any]:
    plans = claim.plans[setting.name]
    at = levels(register, setting.name, len(plans))
    known = setting.name in claim.known_in

    def judged(leave_out: bool) -> list[Judged]:
        return [_judge_one(register, claim, plan, found, at, known, leave_out) for plan in plans]

    every_run = judged(False)
    verdict = joint_verdict([one.verdict for one in every_run], claim.every)
    points_to = joint_verdict([one.points_to for one in every_run], claim.every)
    shown = _deciding(every_run, claim)
    without = None
    reason = _reason(register, claim, setting, every_run, verdict, points_to)
    if any(one.diverged for one in every_run):
        converged = judged(True)
        other = joint_verdict([one.verdict for one in converged], claim.every)
        other_points_to = joint_verdict([one.points_to for one in converged], claim.every)
        without = {
            "verdict": other,
            "points_to": other_points_to,
            **_numbers(_deciding(converged, claim)),
            "reason": _reason(register, claim, setting, converged, other, other_points_to),
            "comparisons": [_comparison(one) for one in converged],
        }
        if other != verdict:
            reason = f"with the diverged runs {verdict}, without them {other}: {reason}"
            verdict = INCONCLUSIVE
        if other_points_to != points_to:
            points_to = INCONCLUSIVE
    return {
        "id": claim.id,
        "setting": setting.name,
        "sentence": claim.sentence,
        "source": claim.source,
        "statistic": claim.statistic,
        "threshold": str(claim.region),
        "verdict": verdict,
        "points_to": points_to,
        "descriptive": verdict not in (HOLDS, FAILS) and bool(known or _too_few(register, claim, every_run)),
        "level": _rounded(at.single),
        "level_family": _rounded(at.family),
        **_numbers(shown),
        "without_diverged": without,
        "comparisons": [_comparison(one) for one in every_run],
        "reason": reason,
    }


def _judge_one(
    register: Register, claim: Claim, plan: Planned, found: Tables, at: Levels, known: bool, leave_out: bool
) -> Judged:
    cells = found.compare(plan.requests, leave_out)
    if cells.missing:
        return Judged(plan.label, NOT_RUN, NOT_RUN, missing=cells.missing, diverged=cells.diverged)
    single, family, estimate = _intervals(register, claim, plan, cells, at)
    # All must hold: each at its own level is enough for that, while one that fails is found among
    # several. One must hold: the other way round.
    to_hold, to_fail = (single, family) if claim.every else (family, single)
    points_to = one_verdict(claim.region, to_hold, to_fail)
    if claim.lower_bound and points_to == HOLDS:
        points_to = INCONCLUSIVE
    deciding = {HOLDS: to_hold, FAILS: to_fail}.get(points_to, single)
    enough = not known and (not claim.needs_seeds or len(cells.seeds) >= register.minimum_seeds)
    values = np.broadcast_to(plan.combine(*_per_seed(cells)), len(cells.seeds))
    return Judged(
        plan.label,
        points_to if enough else INCONCLUSIVE,
        points_to,
        estimate,
        single,
        family,
        deciding,
        {seed: float(value) for seed, value in zip(cells.seeds, values, strict=True)},
        sum((cells.documents or {}).values()),
        diverged=cells.diverged,
        left_out=cells.left_out,
        dropped=cells.dropped,
    )


def _per_seed(cells: Comparable) -> list[np.ndarray]:
    ones = {split: np.ones((1, count)) for split, count in (cells.documents or {}).items()}
    return [cell.per_seed(ones)[0] for cell in cells.cells]


def _intervals(
    register: Register, claim: Claim, plan: Planned, cells: Comparable, at: Levels
) -> tuple[Interval | None, Interval | None, float]:
    def statistic(documents: Mapping[str, np.ndarray], seeds: np.ndarray) -> np.ndarray:
        total = seeds.sum(axis=1)
        return plan.combine(*((cell.per_seed(documents) * seeds).sum(axis=1) / total for cell in cells.cells))

    estimate = bootstrap(statistic, cells.documents or {}, len(cells.seeds), register.draws)
    if claim.point:
        known = (estimate.value, estimate.value) if math.isfinite(estimate.value) else None
        return known, known, estimate.value
    return estimate.interval(at.single), estimate.interval(at.family), estimate.value


def _deciding(judged: list[Judged], claim: Claim) -> Judged | None:
    """The comparison on which the verdict hangs: the worst where all must hold, else the best."""
    ran = [one for one in judged if one.verdict != NOT_RUN]
    if not ran:
        return None
    rank = {FAILS: 0, INCONCLUSIVE: 1, HOLDS: 2}

    def standing(one: Judged) -> tuple[int, int, float]:
        margin = claim.region.margin(one.estimate)
        return rank[one.verdict], rank[one.points_to], margin if math.isfinite(margin) else -math.inf

    return min(ran, key=standing) if claim.every else max(ran, key=standing)


def _numbers(one: Judged | None) -> dict[str, Any]:
    one = one or Judged("", NOT_RUN, NOT_RUN)
    values = np.array(list(one.per_seed.values()))
    spread = None
    if len(values):
        spread = {
            "sd": _rounded(float(values.std(ddof=1))) if len(values) > 1 else None,
            "min": _rounded(float(values.min())),
            "max": _rounded(float(values.max())),
            "values": {str(seed): _rounded(value) for seed, value in one.per_seed.items()},
        }
    return {
        "estimate": _rounded(one.estimate),
        "interval": _rounded_pair(one.interval),
        "interval_family": _rounded_pair(one.interval_family),
        "interval_deciding": _rounded_pair(one.deciding),
        "seeds": len(one.per_seed),
        "documents": one.documents,
        "spread": spread,
    }


def _comparison(one: Judged) -> dict[str, Any]:
    return {
        "label": one.label,
        "verdict": one.verdict,
        "points_to": one.points_to,
        **_numbers(one),
        "missing": list(one.missing),
        "diverged_seeds": list(one.diverged),
        "seeds_left_out": list(one.left_out),
        "documents_left_out": one.dropped,
    }


def _too_few(register: Register, claim: Claim, judged: list[Judged]) -> list[Judged]:
    """The comparisons that have too few seeds to decide; a claim that is decided is so without them."""
    if not claim.needs_seeds:
        return []
    return [one for one in judged if one.verdict != NOT_RUN and len(one.per_seed) < register.minimum_seeds]


def _reason(
    register: Register, claim: Claim, setting: Setting, judged: list[Judged], verdict: str, points_to: str
) -> str:
    if not judged:
        return f"setting {setting.name} names no cell for it"
    shown = _deciding(judged, claim)
    parts = []
    if shown is not None and verdict != NOT_RUN:
        parts.append(_where_it_lies(shown, claim))
        if len(judged) > 1:
            counts = {
                name: sum(one.verdict == name for one in judged) for name in (HOLDS, FAILS, INCONCLUSIVE)
            }
            listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
            asked = "all must hold" if claim.every else "one must hold"
            parts.append(f"of {len(judged)} comparisons ({asked}): {listed}")
    missing = list(dict.fromkeys(text for one in judged for text in one.missing))
    if missing:
        more = len(missing) - _NAMED
        tail = f"; and {more} more, which claims.json names" if more > 0 else ""
        parts.append(f"missing in setting {setting.name}: " + "; ".join(missing[:_NAMED]) + tail)
    if verdict not in (HOLDS, FAILS):
        why = []
        if setting.name in claim.known_in:
            why.append("written after rows of this setting were read")
        if short := _too_few(register, claim, judged):
            fewest = min(len(one.per_seed) for one in short)
            why.append(f"{fewest} seeds in common, {register.minimum_seeds} needed to decide")
        if why:
            parts.append("descriptive: " + ", ".join(why))
            parts += [f"points to {points_to}"] * (points_to != verdict)
    diverged = sorted({seed for one in judged for seed in one.diverged})
    if diverged:
        parts.append("diverged seeds: " + ", ".join(str(seed) for seed in diverged))
    return "; ".join(parts)


def _where_it_lies(one: Judged, claim: Claim) -> str:
    where, name = claim.region, f"{one.label}: " if one.label else ""
    if one.deciding is None:
        return f"{name}no interval can be given"
    if one.deciding[0] == one.deciding[1]:
        return f"{name}{one.estimate:.4g} against {where}"
    low, high = one.deciding
    place = {
        HOLDS: "lies within",
        FAILS: "lies outside",
        INCONCLUSIVE: "does not decide",
    }[one.points_to]
    if claim.lower_bound and where.contains(one.deciding):
        place = "is a lower bound and cannot prove"
    return f"{name}{one.estimate:.4g} [{low:.4g}, {high:.4g}] {place} {where}"


def _rounded(value: float) -> float | None:
    """Six significant digits, so that the last bits of a sum do not change the file; None for NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _rounded_pair(pair: Interval | None) -> list[float | None] | None:
    return None if pair is None else [_rounded(pair[0]), _rounded(pair[1])]
