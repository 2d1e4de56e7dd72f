"""The dense run that the features of another are new against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from expander_sae.study.jobs import jobs_of
from expander_sae.study.run import Run


def with_references(runs: Sequence[Run]) -> tuple[tuple[Run, ...], list[str]]:
    """The runs, each analysis of novelty with its `reference`; and which have none, and why.

    A reference is a full dense tied run of the same seed; of such a run itself it is the next seed, of
    the last one the first.
    """
    known = set(runs)
    dense = jobs_of(run for run in runs if run == run.dense)
    found, reasons = [], []
    for run in runs:
        if "novelty" in run.analysis.analyses:
            missing, other = None, run.dense
            if other in run.ancestors:
                missing = "it starts from the dense run of its seed"
            elif run != other:
                missing = None if other in known else "the study has no full dense tied run of its seed"
            else:
                seeds = dense[run.cell.name].runs
                other = seeds[(seeds.index(run) + 1) % len(seeds)]
                missing = "the study has no other seed of it" if other == run else None
            if missing:
                reasons.append(f"{run.cell.name}: novelty, since {missing}")
            else:
                run = replace(run, analysis=replace(run.analysis, reference=other.path))
        found.append(run)
    return tuple(found), list(dict.fromkeys(reasons))
