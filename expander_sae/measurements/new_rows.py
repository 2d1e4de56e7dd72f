"""Rows of the tables under construction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Rows:
    """The columns of one run (`tables.RUN_COLUMNS`) and what was measured of it.

    A number that is not finite makes no row, nor do document sums of which one is not: a table never
    holds NaN, and of a run that is broken the row `diverged` tells why others are missing.
    """

    columns: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)

    def add(self, inference: str, split: str, values: dict[str, float]) -> None:
        """One row for each metric of `values`."""
        for metric, value in values.items():
            if math.isfinite(value):
                where = {"inference": inference, "split": split, "metric": metric}
                self.metrics.append(self.columns | where | {"value": float(value)})

    def add_documents(
        self, inference: str, split: str, metric: str, documents: np.ndarray, values: np.ndarray
    ) -> None:
        """Sum per-token values by document."""
        unique, inverse = np.unique(documents, return_inverse=True)
        sums, counts = np.bincount(inverse, weights=values), np.bincount(inverse)
        self.add_document_sums(inference, split, metric, zip(unique, sums, counts, strict=True))

    def add_document_sums(
        self, inference: str, split: str, metric: str, sums: Iterable[tuple[int, float, int]]
    ) -> None:
        """One row for each (document, sum, count)."""
        where = self.columns | {"inference": inference, "split": split, "metric": metric}
        entries = [
            where | {"document": int(document), "sum": float(total), "count": int(count)}
            for document, total, count in sums
        ]
        if all(math.isfinite(entry["sum"]) for entry in entries):
            self.documents.extend(entries)
