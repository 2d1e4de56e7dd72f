"""Rows of the recovery of planted codes, and their agreement with the published table.

The joint standard error of our rate and the published one is that of a difference of two
proportions, from one pooled rate with two successes and two failures added (Agresti and Coull):

    p̃ = (x₁ + x₂ + 2)/(n₁ + n₂ + 4),   SE = √(p̃(1 − p̃)(1/n₁ + 1/n₂))

so that cells at 0 or 1 have an error too. It is binomial alone; how much masks add is told by
`recovery_mask_variance_ratio`: variance of the rates over masks by what trials alone would give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expander_sae.errors import UserError
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.study.run import LEFT_OUT

INFERENCE = "omp_absolute"
PUBLISHED_TRIALS = 300
"""Three masks of a hundred trials in each published cell."""
_PUBLISHED = ("m", "n", "sigma", "d", "k", "support_recovery_rate")


def split_of(sigma: float) -> str:
    """The split of a noise level: sigma0, sigma0.01, …"""
    return f"sigma{sigma:g}"


def columns(m: int, n: int, d: int, k: int, seed: int) -> dict[str, Any]:
    """The run columns of a cell; `seed` is that of the mask."""
    run = {"model": "synthetic", "corpus": "gaussian", "layer": 0, "recipe": "none"}
    run |= {"support": "expander", "encoder": "none", "m": m, "n": n, "d": d, "k": k}
    return run | LEFT_OUT | {"train_tokens": 0, "steps": 0, "seed": seed}


def write_synthetic(
    spec: Mapping[str, Any], out_metrics: Path, out_documents: Path, backend: str = "auto"
) -> None:
    """Recover planted codes by OMP with absolute selection at one d, and write the rows.

    `spec` has m, n, d, k and sigma (lists), masks (seeds 0, 1, …) and trials on each. Metrics are
    `exact_recovery` and `support_overlap`; the noiseless trials are documents of the former.
    """
    from expander_sae.evaluation.synthetic import Cell, recovery  # torch, which comparing does without

    metrics: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    for k in spec["k"]:
        for sigma in map(float, spec["sigma"]):
            cell = Cell(spec["m"], spec["n"], spec["d"], k, sigma)
            found = recovery(cell, range(spec["masks"]), spec["trials"], backend=backend)
            for seed, (recovered, overlap) in enumerate(zip(found.recovered, found.overlap, strict=True)):
                rows = Rows(columns(cell.m, cell.n, cell.d, k, seed))
                values = {"exact_recovery": float(recovered.mean()), "support_overlap": float(overlap.mean())}
                rows.add(INFERENCE, split_of(sigma), values)
                if sigma == 0:
                    sums = ((trial, float(one), 1) for trial, one in enumerate(recovered))
                    rows.add_document_sums(INFERENCE, split_of(sigma), "exact_recovery", sums)
                metrics += rows.metrics
                documents += rows.documents
    tables.write_metrics(metrics, out_metrics)
    tables.write_documents(documents, out_documents)


def joint_standard_error(rate: float, trials: int, other: float, others: int = PUBLISHED_TRIALS) -> float:
    """Standard error of the difference of two rates; see the head of this module."""
    pooled = (rate * trials + other * others + 2) / (trials + others + 4)
    return math.sqrt(pooled * (1 - pooled) * (1 / trials + 1 / others))


@dataclass(frozen=True)
class Comparison:
    """One published cell beside ours. rates: of each mask, `trials` each."""

    d: int
    k: int
    sigma: float
    published: float
    rates: tuple[float, ...]
    trials: int

    @property
    def rate(self) -> float:
        return float(np.mean(self.rates))

    @property
    def difference(self) -> float:
        """Ours less the published."""
        return self.rate - self.published

    @property
    def standard_errors(self) -> float:
        """The difference in joint standard errors."""
        total = self.trials * len(self.rates)
        return self.difference / joint_standard_error(self.rate, total, self.published)


def compare_published(ours: pd.DataFrame, published: pd.DataFrame, trials: int) -> list[Comparison]:
    """Every published cell that `ours`, rows of metrics.parquet, has too."""
    rows = ours[(ours["metric"] == "exact_recovery") & (ours["inference"] == INFERENCE)]
    groups = rows.sort_values("seed").groupby(["m", "n", "d", "k", "split"])["value"]
    rates = {key: tuple(map(float, values)) for key, values in groups}
    found = []
    for m, n, sigma, d, k, rate in published[list(_PUBLISHED)].itertuples(index=False, name=None):
        mine = rates.get((int(m), int(n), int(d), int(k), split_of(float(sigma))))
        if mine is not None:
            found.append(Comparison(int(d), int(k), float(sigma), float(rate), mine, trials))
    return found


def trials_of(documents: pd.DataFrame) -> int | None:
    """Trials on each mask, counted in noiseless cells, where each is a document; None without any."""
    rows = documents[(documents["metric"] == "exact_recovery") & (documents["inference"] == INFERENCE)]
    found = rows.groupby(["m", "n", "d", "k", "seed"]).size().unique()
    if len(found) > 1:
        listed = ", ".join(map(str, sorted(found)))
        raise UserError(f"synthetic recovery: found cells of {listed} trials a mask, expected one number")
    return int(found[0]) if len(found) else None


def mask_variance_ratio(cells: Sequence[Comparison]) -> float:
    """Σ variance of the rates over masks / Σ p(1 − p)/trials, over cells: 1 where masks add nothing.

    p(1 − p) by its unbiased estimate from each mask's trials; NaN with one mask, one trial, or rates that
    are all 0 or 1.
    """
    if not cells or len(cells[0].rates) < 2 or cells[0].trials < 2:
        return math.nan
    observed = sum(float(np.var(cell.rates, ddof=1)) for cell in cells)
    expected = sum(
        float(np.mean([rate * (1 - rate) for rate in cell.rates])) / (cell.trials - 1) for cell in cells
    )
    return observed / expected if expected > 0 else math.nan


def write_agreement(parts: Sequence[Path], published: Path, trials: int, out: Path) -> None:
    """One row of each number of the agreement with the published table, d = k = 0.

    Nothing is written unless every published cell was run: the numbers are of all cells.
    """
    table = tables.read_published(published, _PUBLISHED, "the published table of recovery")
    ours = [tables.read_metrics(part) for part in parts]
    cells = compare_published(pd.concat(ours), table, trials) if ours else []
    rows = Rows(columns(int(table["m"].iloc[0]), int(table["n"].iloc[0]), 0, 0, 0))
    if len(cells) == len(table):
        values = {
            "recovery_cells": float(len(cells)),
            "recovery_largest_difference": max(abs(cell.difference) for cell in cells),
            "recovery_mean_difference": float(np.mean([cell.difference for cell in cells])),
            "recovery_within_two_se": float(sum(abs(cell.standard_errors) <= 2 for cell in cells)),
            "recovery_mask_variance_ratio": mask_variance_ratio(cells),
        }
        rows.add(INFERENCE, "all_cells", values)
    tables.write_metrics(rows.metrics, out)
