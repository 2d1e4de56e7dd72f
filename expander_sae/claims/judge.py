"""Judging the claims of a file by tables alone: no weights, no activations, no torch.

docs/claims.md explains the method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from expander_sae.claims import verdicts
from expander_sae.claims.comparisons import Planned
from expander_sae.claims.records import claim_record
from expander_sae.claims.register import Register, read_register
from expander_sae.claims.settings import Setting
from expander_sae.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, Case, Judged, Ruling, Spread
from expander_sae.measurements import tables
from expander_sae.measurements.bootstrap import Bootstrapped, bootstrap
from expander_sae.measurements.document_cells import Comparable, Tables
from expander_sae.storage.files import write_json


def write_claims(
    metrics: Path, documents: Path, register: Path, out: Path, speed: Path | None = None
) -> None:
    """Judge the claims of a file by metrics.parquet and documents.parquet, and write claims.json.

    The rows of `speed`, left out where it does not exist, are not part of metrics.parquet since times differ
    from run to run.
    """
    claims = read_register(register)
    times = tables.read_metrics(speed) if speed is not None and speed.exists() else None
    found = Tables(tables.read_metrics(metrics), tables.read_documents(documents), times)
    write_json(out, judge(claims, found))


def judge(register: Register, found: Tables) -> list[dict[str, Any]]:
    """One record for each claim in the first setting and in every other that the tables hold.

    Parts of a setting are judged with it.
    """
    return [
        _judge_claim(Case(register, claim, setting), found)
        for setting in register.settings
        if setting.whole is register.settings[0] or _has_runs(found, setting.whole)
        for claim in register.claims
        if setting.name in claim.plans
    ]


def _has_runs(found: Tables, setting: Setting) -> bool:
    runs = found.measured_runs
    chosen = np.ones(len(runs), dtype=bool)
    for column, value in setting.where.items():
        chosen &= (runs[column] == value).to_numpy()
    return bool(chosen.any())


def _judge_claim(case: Case, found: Tables) -> dict[str, Any]:
    def ruling(leave_out: bool) -> Ruling:
        cells = [found.compare(plan.requests, leave_out) for plan in case.plans]
        return Ruling(case, tuple(map(partial(_judge_one, case), case.plans, cells)))

    every_run = ruling(leave_out=False)
    return claim_record(every_run, ruling(leave_out=True) if every_run.diverged else None)


def _judge_one(case: Case, plan: Planned, found: Comparable) -> Judged:
    """The verdict on one comparison, whose cells `found` are those that `plan` asks for."""
    if found.missing:
        return Judged(label=plan.label, missing=found.missing, diverged_seeds=found.diverged)
    claim = case.claim
    estimate = _bootstrapped(plan, found, case.register.draws)
    if claim.point:
        single = family = (estimate.value, estimate.value) if math.isfinite(estimate.value) else None
    else:
        single, family = estimate.interval(case.level), estimate.interval(case.level_family)
    # All must hold: each at its own level is enough for that, while one that fails is found among
    # several. One must hold: the other way round.
    to_hold, to_fail = (single, family) if claim.every else (family, single)
    points_to = verdicts.one_verdict(claim.region, to_hold, to_fail)
    if claim.lower_bound and points_to == HOLDS:
        points_to = INCONCLUSIVE
    undecided = case.known or case.short_of(len(found.seeds))
    return Judged(
        label=plan.label,
        verdict=INCONCLUSIVE if undecided else points_to,
        points_to=points_to,
        estimate=estimate.value,
        interval=single,
        interval_family=family,
        interval_deciding={HOLDS: to_hold, FAILS: to_fail}.get(points_to, single),
        seeds=len(found.seeds),
        documents=sum((found.documents or {}).values()),
        spread=_spread(plan, found),
        diverged_seeds=found.diverged,
        seeds_left_out=found.left_out,
        documents_left_out=found.dropped,
    )


def _spread(plan: Planned, found: Comparable) -> Spread:
    """The statistic of each seed, every document counting once."""
    ones = {split: np.ones((1, count)) for split, count in (found.documents or {}).items()}
    each = plan.combine(*(cell.per_seed(ones)[0] for cell in found.cells))
    values = np.broadcast_to(each, len(found.seeds)).astype(float)
    return Spread(
        float(values.std(ddof=1)) if len(values) > 1 else None,
        float(values.min()),
        float(values.max()),
        dict(zip(map(str, found.seeds), values.tolist(), strict=True)),
    )


def _bootstrapped(plan: Planned, found: Comparable, draws: int) -> Bootstrapped:
    """The statistic of means over seeds, and its standard error."""

    def statistic(documents: Mapping[str, np.ndarray], seeds: np.ndarray) -> np.ndarray:
        total = seeds.sum(axis=1)
        return plan.combine(*((cell.per_seed(documents) * seeds).sum(axis=1) / total for cell in found.cells))

    return bootstrap(statistic, found.documents or {}, len(found.seeds), draws)
