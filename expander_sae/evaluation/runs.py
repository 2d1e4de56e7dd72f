"""Every measurement of one trained run, as rows of the tables."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import UserError
from expander_sae.evaluation import tables
from expander_sae.evaluation.cross_entropy import recovered, sequence_edges, spliced_sums
from expander_sae.evaluation.reconstruction import reconstruct
from expander_sae.evaluation.storage import storage
from expander_sae.files import write_json
from expander_sae.inference import INFERENCES
from expander_sae.runs import WEIGHTS

BASELINES = {
    "ce_recovered": "ce_zero",
    "ce_recovered_zero_kept": "ce_zero_kept",
    "ce_recovered_mean": "ce_mean_kept",
}
"""Which ablation each recovery is measured against. `ce_recovered` is the published one (every
token zeroed); the others pass the same tokens through as the splice does, which earns nothing."""


@dataclass
class Rows:
    """Rows under construction: the run's columns and what was measured."""

    columns: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)

    def add(self, inference: str, split: str, values: dict[str, float]) -> None:
        for metric, value in values.items():
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
        for document, total, count in sums:
            where = {"inference": inference, "split": split, "metric": metric}
            entry = {"document": int(document), "sum": float(total), "count": int(count)}
            self.documents.append(self.columns | where | entry)


def _baselines(path: Path) -> dict[str, float]:
    frame = pd.read_parquet(path)
    found = dict(zip(frame["metric"], frame["value"], strict=True))
    missing = ({"ce_clean"} | set(BASELINES.values())) - found.keys()
    if missing:
        raise UserError(f"{path}: no row for {', '.join(sorted(missing))}; remove it to have it made again")
    return found


def evaluate_run(
    folder: Path,
    settings: dict[str, Any],
    test_pool: Path,
    ce_pool: Path,
    model_file: Path,
    baseline: Path,
    out_metrics: Path,
    out_documents: Path,
    out_timings: Path,
    device: str = "cpu",
    backend: str = "auto",
) -> None:
    """Evaluate the run in `folder` on held-out tokens and write its three files.

    settings: inference (names), cross_entropy (the names among them whose reconstruction is
    spliced into the model), test_tokens, ce_sequences.

    Metrics of reconstruction are over the tokens that the autoencoder encodes, those whose norm
    is at most its `norm_limit`; `encoded_share` tells how many these are.
    """
    unknown = sorted(set(settings["inference"]) - INFERENCES.keys())
    if unknown:
        raise UserError(f"evaluation.inference: found {unknown[0]!r}, expected {', '.join(INFERENCES)}")
    autoencoder, about = SparseAutoencoder.load(folder / WEIGHTS, device, backend)
    rows = Rows({column: about["spec"][column] for column in tables.RUN_COLUMNS})
    test, ce = Pool.open(test_pool), Pool.open(ce_pool)
    if test.tokens < settings["test_tokens"]:
        raise UserError(f"{test_pool}: {test.tokens} tokens, expected at least {settings['test_tokens']}")
    seconds: dict[str, float] = {}
    rows.add("none", "none", dict(storage(autoencoder)))
    uncovered = 0 if autoencoder.mask is None else autoencoder.mask.uncovered_rows()
    rows.add("none", "none", {"uncovered_rows": uncovered})
    limit = math.inf if about["norm_limit"] is None else about["norm_limit"]
    finite = all(bool(torch.isfinite(parameter).all()) for parameter in autoencoder.parameters())
    diverged = not finite
    # The encoder first: what it diverges on is diverged for every other inference too.
    for name in sorted(settings["inference"], key=lambda name: name != "encoder"):
        began = time.perf_counter()
        summary = _reconstruction_rows(rows, autoencoder, test, settings["test_tokens"], limit, name)
        diverged |= not summary["relative_error"] <= 1
        rows.add(name, "test", {"diverged": float(diverged)})
        seconds[f"reconstruction_{name}"] = time.perf_counter() - began
    reference = _baselines(baseline)
    model = LanguageModel.load(model_file, device)
    for name in settings["cross_entropy"]:
        began = time.perf_counter()
        _cross_entropy_rows(rows, autoencoder, model, ce, settings["ce_sequences"], limit, name, reference)
        seconds[f"cross_entropy_{name}"] = time.perf_counter() - began
    tables.write_metrics(rows.metrics, out_metrics)
    tables.write_documents(rows.documents, out_documents)
    write_json(out_timings, {"fingerprint": about["fingerprint"], "seconds": seconds})


def _reconstruction_rows(
    rows: Rows, autoencoder: SparseAutoencoder, pool: Pool, tokens: int, limit: float, name: str
) -> dict[str, float]:
    encoded = np.flatnonzero(pool.norms[:tokens] <= limit)
    if encoded.size == 0:
        raise UserError(f"norm_limit {limit:g}: no test token has a norm below it")
    _, sums = reconstruct(autoencoder, pool.activations[encoded], INFERENCES[name])
    summary = sums.summary()
    rows.add(name, "test", summary | {"encoded_share": encoded.size / tokens})
    documents = pool.document[encoded]
    rows.add_documents(name, "test", "relative_error", documents, sums.token_relative_error)
    rows.add_documents(name, "test", "squared_error", documents, sums.squared_error)
    rows.add_documents(name, "test", "squared_deviation", documents, sums.squared_deviation)
    return summary


def _cross_entropy_rows(
    rows: Rows,
    autoencoder: SparseAutoencoder,
    model: LanguageModel,
    pool: Pool,
    sequences: int,
    limit: float,
    name: str,
    reference: dict[str, float],
) -> None:
    tokens = int(sequence_edges(pool, sequences)[-1])
    spliced = np.array(pool.activations[:tokens])
    encoded = np.flatnonzero(pool.norms[:tokens] <= limit)
    spliced[encoded], _ = reconstruct(autoencoder, spliced[encoded], INFERENCES[name])
    layer = int(rows.columns["layer"])
    documents, sums, counts = spliced_sums(model, pool, torch.from_numpy(spliced), layer, sequences)
    entropy = float(sums.sum() / counts.sum())
    clean = reference["ce_clean"]
    values = {"ce": entropy}
    for metric, ablated in BASELINES.items():
        values[metric] = recovered(reference[ablated], entropy, clean)
    rows.add(name, "ce", values)
    rows.add_document_sums(name, "ce", "ce", zip(documents, sums, counts, strict=True))
