"""Everything that figures, tables and the report are made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from expander_sae.errors import UserError
from expander_sae.measurements.cells import Book, View
from expander_sae.measurements.points import read_metrics, read_published
from expander_sae.measurements.tables import read_curves
from expander_sae.storage.files import read_json

RESOURCES = Path(__file__).resolve().parents[2] / "resources"
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@dataclass(frozen=True)
class Sources:
    """Tables, verdicts and published figures. What does not exist is empty.

    metrics: metrics.parquet. published, published_synthetic: resources/*.csv. curves: curves.parquet,
    run columns and those of training.csv. claims: records of claims.json. benchmarks: rows of
    benchmarks/results/*.json. trials: (d, k) → synthetic trials on all masks
    together.
    """

    metrics: pd.DataFrame
    published: pd.DataFrame
    published_synthetic: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    claims: list[dict[str, Any]] = field(default_factory=list)
    benchmarks: pd.DataFrame = field(default_factory=pd.DataFrame)
    trials: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @cached_property
    def book(self) -> Book:
        return Book(self.metrics[self.metrics["model"] != "synthetic"])

    @property
    def views(self) -> list[View]:
        """Each place of the table, the largest first."""
        return self.book.views


def load(
    metrics: str | Path,
    published: str | Path | None = RESOURCES / "paper_figures.csv",
    published_synthetic: str | Path | None = RESOURCES / "paper_synthetic_omp.csv",
    curves: str | Path | None = None,
    claims: str | Path | None = None,
    benchmarks: Iterable[str | Path] = (),
    documents: str | Path | None = None,
) -> Sources:
    """Read them; None, or a path that does not exist, leaves `curves`, `claims` and `benchmarks` empty.

    Raises `UserError` where a file is there and cannot be read.
    """
    return Sources(
        read_metrics(metrics),
        read_published(published),
        pd.read_csv(published_synthetic) if published_synthetic else pd.DataFrame(),
        read_curves(curves) if curves and Path(curves).exists() else pd.DataFrame(),
        read_json(claims) if claims and Path(claims).exists() else [],
        _benchmarks(benchmarks),
        _trials(_table(documents, [("model", "==", "synthetic")])),
    )


def _trials(documents: pd.DataFrame) -> dict[tuple[int, int], int]:
    """Counted where each trial is a document: in the noiseless cells, which have as many as the others."""
    if documents.empty:
        return {}
    rows = documents[(documents["metric"] == "exact_recovery") & (documents["split"] == "sigma0")]
    counts = rows.groupby(["d", "k"])["count"].sum().reset_index()
    return {(int(d), int(k)): int(count) for d, k, count in counts.itertuples(index=False, name=None)}


def _table(path: str | Path | None, only: Any = None) -> pd.DataFrame:
    if path is None or not Path(path).exists():
        return pd.DataFrame()
    try:
        return pd.read_parquet(path, filters=only)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet table ({error})") from None


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
                rows.append({"file": path.stem, **{name: row.get(name) for name in _SPEED}})
    return pd.DataFrame(rows, columns=["file", *_SPEED])
