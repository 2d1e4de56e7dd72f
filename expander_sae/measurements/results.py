"""Everything that figures, tables and the report are made from, read once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from expander_sae.errors import UserError
from expander_sae.measurements import published
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.index import Index
from expander_sae.measurements.tables import (
    completed,
    read_curves,
    read_documents,
    read_metrics,
    read_published,
)
from expander_sae.measurements.view import View, every_view, main_views
from expander_sae.storage.files import read_json
from expander_sae.storage.workflow_files import RESOURCES

INFERENCES = ("encoder", "omp")
"""How every autoencoder is read; other pursuits are run on some."""


@dataclass(frozen=True)
class Results:
    """Tables, verdicts and published figures. What does not exist is empty.

    Args:
        metrics: metrics.parquet.
        published_figures, published_recovery: resources/*.csv.
        curves: curves.parquet, run columns and those of training.csv.
        claims: records of claims.json.
        benchmarks: rows of benchmarks/results/*.json.
        trials: (d, k) → synthetic trials on all masks together.
    """

    metrics: pd.DataFrame
    published_figures: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=published.COLUMNS))
    published_recovery: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    claims: list[dict[str, Any]] = field(default_factory=list)
    benchmarks: pd.DataFrame = field(default_factory=pd.DataFrame)
    trials: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @cached_property
    def index(self) -> Index:
        """Look-ups in the measurements."""
        return Index(self.metrics)

    @cached_property
    def published(self) -> published.Published:
        """Look-ups in the published figures."""
        return published.Published(self.published_figures)

    @cached_property
    def views(self) -> list[View]:
        """Each place at its main budget and k, the largest first."""
        return main_views(self.index, self.published)

    @cached_property
    def every_view(self) -> list[View]:
        """Each place at each budget and k, sorted."""
        return every_view(self.index, self.published)

    def curves_of(self, view: View) -> pd.DataFrame:
        """The learning curves of a view's tied runs of n features."""
        if self.curves.empty:
            return self.curves
        budget = {"k": view.k, "train_tokens": view.train_tokens, "steps": view.steps}
        curves, told = completed(self.curves), {"encoder": "tied", "precision": self.index.precision}
        told["codes"] = self.index.codes
        chosen = pd.Series(True, index=curves.index)
        for column, value in {**view.place._asdict(), **budget, **told}.items():
            chosen &= curves[column] == value
        return curves[chosen]

    @cached_property
    def recovery(self) -> dict[tuple[float, int, int], Estimate]:
        """(σ, d, k) → how often planted codes were recovered exactly, the seeds being those of masks."""
        found = {
            (float(split.removeprefix("sigma")), cell.d, cell.k): self.index.estimate(cell, metric, by, split)
            for cell, by, split, metric in self.index
            if (cell.model, metric) == ("synthetic", "exact_recovery") and split.startswith("sigma")
        }
        return dict(sorted(found.items()))


def read_results(
    metrics: str | Path,
    published_figures: str | Path | None = RESOURCES / "paper_figures.csv",
    published_recovery: str | Path | None = RESOURCES / "paper_synthetic_omp.csv",
    curves: str | Path | None = None,
    claims: str | Path | None = None,
    benchmarks: Iterable[str | Path] = (),
    documents: str | Path | None = None,
) -> Results:
    """Read them; None, or a path of the last four that does not exist, leaves a part empty.

    Raises:
        UserError: a file is there and cannot be read, or metrics.parquet measures neither an autoencoder
            nor the recovery of planted codes, with which a study may begin.
    """
    frame = read_metrics(metrics)
    if not (frame["inference"].isin(INFERENCES) | (frame["model"] == "synthetic")).any():
        raise UserError(
            f"{metrics}: found {len(frame)} rows and no measurement of an SAE, expected at least one"
        )
    beside: dict[str, Any] = {}
    if published_figures:
        what = "the table of published figures"
        beside["published_figures"] = read_published(published_figures, published.COLUMNS, what)
    if published_recovery:
        beside["published_recovery"] = pd.read_csv(published_recovery)
    if curves and Path(curves).exists():
        beside["curves"] = read_curves(curves)
    if claims and Path(claims).exists():
        beside["claims"] = read_json(claims)
    if documents and Path(documents).exists():
        beside["trials"] = _trials(read_documents(documents))
    return Results(frame, benchmarks=_benchmarks(benchmarks), **beside)


def _trials(documents: pd.DataFrame) -> dict[tuple[int, int], int]:
    """Counted where each trial is a document: in the noiseless cells, which have as many as the others."""
    planted = (documents["model"] == "synthetic") & (documents["metric"] == "exact_recovery")
    counts = documents[planted & (documents["split"] == "sigma0")].groupby(["d", "k"])["count"].sum()
    return {(int(d), int(k)): int(count) for d, k, count in counts.reset_index().to_numpy()}


_SPEED = (
    *["task", "variant", "m", "n", "d", "k", "B", "dtype", "threads", "ms_median", "ms_q25", "ms_q75"],
    *["peak_mb", "device"],
)


def _benchmarks(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Rows of all files that hold a list of measurements; other files of the folder are left alone."""
    rows: list[dict[str, Any]] = []
    for path in sorted(map(Path, paths)):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable as JSON ({error})") from None
        for row in found if isinstance(found, list) else []:
            if isinstance(row, dict) and {"task", "variant", "ms_median"} <= row.keys():
                rows.append({"file": path.stem, **{name: row.get(name) for name in _SPEED}, **_together(row)})
    return pd.DataFrame(rows, columns=["file", *_SPEED])


def _together(row: dict[str, Any]) -> dict[str, Any]:
    """The variant of a row that times several autoencoders at once, and their widths, as words."""
    several = {"variant": f"{row['variant']} × {row['together']}"} if row.get("together", 1) > 1 else {}
    widths = row.get("d")
    return several | ({"d": ", ".join(map(str, widths))} if isinstance(widths, list) else {})
