"""Ours beside the published: only where model, layer and every size are the same.

A difference is given in units of the joint interval, √(ours² + theirs²) of the two half-widths:
beyond ±1 the two means differ by more than their 95 % intervals together allow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from expander_sae.figures.sources import Sources
from expander_sae.figures.synthetic import recovery_cells
from expander_sae.measurements.cells import Cell
from expander_sae.measurements.published import Published, Value
from expander_sae.report.formats import Column, Table

_METRICS = ("relative_error", "ce_recovered", "explained_variance", "dead_fraction")


def in_joint_intervals(ours: Cell, theirs: Value) -> float:
    """(ours − theirs)/√(half² + half²); NaN where neither side has an interval."""
    halves = [half for half in (ours.half, theirs.half) if math.isfinite(half)]
    joint = math.sqrt(sum(half**2 for half in halves))
    return (ours.mean - theirs.mean) / joint if joint > 0 else math.nan


def joint_standard_errors(rate: float, trials: int, published: float, others: int) -> float:
    """(rate − published) in standard errors of the difference of two proportions.

    One pooled rate with two successes and two failures added (Agresti and Coull), as docs/metrics.md
    states it, so that a cell at 0 or 1 has an error too.
    """
    pooled = (rate * trials + published * others + 2) / (trials + others + 4)
    return (rate - published) / math.sqrt(pooled * (1 - pooled) * (1 / trials + 1 / others))


def published_table(sources: Sources) -> Table:
    """One row a cell and metric that were both published and measured."""
    columns = [
        Column("model", "model"), Column("layer", "layer"), Column("recipe", "recipe"),
        Column("support", "support"), Column("encoder", "encoder"), Column("n", "n"), Column("d", "d"),
        Column("k", "k"), Column("train_tokens", "tokens"), Column("inference", "code by"),
        Column("metric", "metric"), Column("ours", "ours", 4), Column("published", "published [1]", 4),
        Column("published_half", "±", 4), Column("difference", "difference", 4),
        Column("joint", "in joint intervals", 2),
    ]  # fmt: skip
    published = Published(sources.published)
    rows: list[dict[str, Any]] = []
    for view in sources.views:
        for run in sorted(view.runs):
            for inference in ("encoder", "omp", "niht", "cosamp"):
                for metric in _METRICS:
                    theirs = published.value(
                        view, metric, run.support, run.d, k=run.k, n=run.n, encoder=run.encoder,
                        inference=inference, tokens=run.train_tokens,
                    )  # fmt: skip
                    # Pursuits beside OMP are run on a few tokens only.
                    few = inference in ("niht", "cosamp")
                    split = "ce" if metric.startswith("ce") else "pursuit" if few else "test"
                    ours = view.book.cell(run, metric, inference, split)
                    if theirs is None or not ours or run.steps != view.steps:
                        continue
                    rows.append({
                        "model": run.model, "layer": run.layer, "recipe": run.recipe, "support": run.support,
                        "encoder": run.encoder, "n": run.n, "d": run.d, "k": run.k,
                        "train_tokens": run.train_tokens, "inference": inference, "metric": metric,
                        "ours": ours, "published": theirs.mean, "published_half": theirs.half,
                        "difference": ours.mean - theirs.mean, "joint": in_joint_intervals(ours, theirs),
                    })  # fmt: skip
    caption = (
        "The same model, layer, sizes and number of training tokens. The corpus sample, its split and the "
        "seeds are ours. Difference in units of the joint 95 % interval: beyond ±1 the means differ by more "
        "than their intervals allow. [1] arXiv 2607.01799."
    )
    notes = []
    other = sorted({view.place.model for view in sources.views if not published.knows(view)})
    if other:
        notes.append(f"Other model, nothing to compare: {', '.join(other)}.")
    return Table("published", "Ours beside the published", caption, columns, rows, notes)


def _joint(cell: Cell, trials: int, row: Mapping[Any, Any] | None) -> float:
    if row is None or trials == 0:
        return math.nan
    others = 100 * int(row["mask_seeds"])
    return joint_standard_errors(cell.mean, trials, float(row["support_recovery_rate"]), others)


def synthetic_table(sources: Sources) -> Table:
    """Every cell of the published table of synthetic recovery beside ours."""
    columns = [
        Column("sigma", "σ", 2), Column("d", "d"), Column("k", "k"), Column("ours", "ours"),
        Column("trials", "trials"), Column("published", "published [1]"),
        Column("difference", "difference"), Column("joint", "in joint standard errors", 2),
    ]  # fmt: skip
    published = {
        (float(row["sigma"]), int(row["d"]), int(row["k"])): row
        for row in sources.published_synthetic.to_dict("records")
    }
    rows: list[dict[str, Any]] = []
    for key, cell in recovery_cells(sources.metrics).items():
        row = published.get(key)
        theirs = float(row["support_recovery_rate"]) if row else math.nan
        trials = sources.trials.get(key[1:], 0)
        rows.append({
            "sigma": key[0], "d": key[1], "k": key[2], "ours": cell, "trials": trials, "published": theirs,
            "difference": cell.mean - theirs,
            "joint": _joint(cell, trials, row),
        })  # fmt: skip
    notes = []
    compared = [row for row in rows if math.isfinite(row["joint"])]
    if compared:  # the claims judge all 90 cells by the rows of split all_cells
        within = sum(abs(row["joint"]) <= 2 for row in compared)
        mean = sum(row["difference"] for row in compared) / len(compared)
        largest = max(abs(row["difference"]) for row in compared)
        notes.append(
            f"{within} of {len(compared)} cells within two joint standard errors; "
            f"mean difference {mean:+.4f}; largest {largest:.3f}."
        )
    caption = (
        "Share of planted supports that OMP with absolute selection finds exactly, m = 512, n = 4,096, "
        "Gaussian codes; ± over masks. [1] arXiv 2607.01799, 3 masks × 100 trials."
    )
    return Table("synthetic", "Synthetic recovery", caption, columns, rows, notes)
