"""What the shipped study can decide of the shipped claims, as docs/claims.md says."""

from __future__ import annotations

import pytest

from expander_sae.claims.judge import write_claims
from expander_sae.claims.register import read_register
from expander_sae.measurements.document_cells import Request
from expander_sae.report.gather import gather
from expander_sae.storage.files import read_json
from expander_sae.study.study import Run, Study, load_config
from tests.claims.world import ROOT


def gives(run: Run, request: Request) -> bool:
    """Whether the tables will have what is asked of this run."""
    if any(getattr(run, column) != value for column, value in request.where.items()):
        return False
    if request.split == "ce_train":
        return run.evaluation.train_cross_entropy
    if request.split == "ce":
        return request.inference in run.evaluation.cross_entropy
    if request.metric == "relative_error":
        return request.inference in run.evaluation.inference
    analysis = "novelty" if request.metric.startswith("novel") else "certificates"
    return analysis in run.analysis.analyses


def test_the_study_s_verdicts_follow_from_its_rows(tmp_path):
    """`make figures` writes them; on another machine a last digit may differ."""
    study = ROOT / "studies" / "smollm2-135m"
    found = gather(study, tmp_path)
    write_claims(
        found.metrics, found.documents, ROOT / "workflow" / "claims.yaml", tmp_path / "c", found.speed
    )
    again, kept = read_json(tmp_path / "c"), read_json(study / "claims.json")
    told = [[record[key] for key in ("id", "verdict", "points_to", "seeds")] for record in kept]
    assert [[record[key] for key in ("id", "verdict", "points_to", "seeds")] for record in again] == told
    for mine, its in zip(again, kept, strict=True):
        numbers = [[one["estimate"], *(one["interval"] or [])] for one in (mine, its)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-6)


def test_what_cannot_be_decided_is_said():
    register = read_register(ROOT / "workflow" / "claims.yaml")
    study = Study(load_config(ROOT / "configs" / "smollm2-135m.yaml"))
    missing, few, some = set(), set(), set()
    for claim in register.claims:
        if "smollm2" not in claim.plans:  # it needs no trained run
            continue
        seeds = []
        for plan in claim.plans["smollm2"]:
            cells = [{run.seed for run in study.runs if gives(run, r)} for r in plan.requests]
            seeds.append(len(set.intersection(*cells)))
        if 0 in seeds:
            missing.add(claim.id)
        if max(seeds) < register.minimum_seeds:
            few.add(claim.id)
        elif min(seeds) < register.minimum_seeds:
            some.add(claim.id)
    assert missing == {"frontier-monotone", "frontier-monotone-error", "omp-gain"}
    assert some == {
        "frontier-every-k", "retention-every-k", "omp-gain", "omp-gain-run", "diversity-somewhere",
        "diversity-clustered-every-k",
    }  # fmt: skip
    assert few == {
        *("frontier-monotone", "frontier-monotone-error", "diversity-pruned", "diversity-pruned-every-k"),
        *("expansion-girth", "expansion-overlap", "diversity-dose", "diversity-dose-ends", "matched-budget"),
        *("expansion-girth-balanced", "expansion-overlap-balanced", "retention-published"),
        *("matched-budget-total", "matched-compute", "omp-gap", "saturation", "matched-budget-omp"),
        *("matched-budget-every-k", "data-efficiency", "encoder-start", "encoder-tied"),
    }
