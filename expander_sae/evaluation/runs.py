"""Every measurement of one trained run, as rows of the tables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.checked_model import load_checked
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.evaluation.certificate_rows import evenly
from expander_sae.evaluation.cross_entropy import (
    TRAIN_BASELINES,
    longest_document,
    recovered,
    sequence_edges,
    spliced_sums,
)
from expander_sae.evaluation.reconstruction import reconstruct
from expander_sae.evaluation.storage import storage
from expander_sae.evaluation.trained import is_finite, load_trained
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.budget import budgeted
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.pursuit.inference import ENCODER, inferences
from expander_sae.study.run import Evaluation, Run

METRICS, DOCUMENTS = "metrics.parquet", "documents.parquet"

BASELINES = {
    "ce_recovered": "ce_zero",
    "ce_recovered_zero_kept": "ce_zero_kept",
    "ce_recovered_mean": "ce_mean_kept",
}
"""Which ablation each recovery is measured against. `ce_recovered` is the published one (every
token zeroed); the others pass the same tokens through as the splice does, which earns nothing."""


def _baselines(path: Path, splits: list[str]) -> dict[str, dict[str, float]]:
    """Split → metric → value of the model itself."""
    frame = tables.read_metrics(path)
    found: dict[str, dict[str, float]] = {}
    for split in splits:
        rows = frame[frame["split"] == split]
        found[split] = dict(zip(rows["metric"], rows["value"], strict=True))
        needed = set(TRAIN_BASELINES) if split == "ce_train" else {"ce_clean", *BASELINES.values()}
        missing = needed - found[split].keys()
        if missing:
            where = f"{', '.join(sorted(missing))} on split {split}"
            raise UserError(f"{path}: no row for {where}; remove it to have it made again")
    return found


def evaluate_run(
    folder: Path,
    settings: Evaluation,
    *,
    test_pool: Path,
    ce_pool: Path,
    model_file: Path,
    baseline: Path,
    train_pool: Path | None = None,
    device: str = "cpu",
    backend: str = "auto",
) -> dict[str, Any]:
    """Evaluate the run in `folder` on held-out tokens; its tables METRICS and DOCUMENTS are written there.

    Returned are the run's fingerprint and the seconds that each measurement took. With
    `settings.train_cross_entropy` the encoder's reconstruction is also spliced in on the first documents of
    `train_pool`, as many as of the ce pool. Metrics of reconstruction are over the tokens that the
    autoencoder encodes, those whose norm is at most its `norm_limit`; `encoded_share` tells how many these
    are. A run with a parameter that is not finite gets its storage and `diverged` = 1, and nothing else.
    """
    for name in settings.inference:
        inferences(name)
    autoencoder, run = load_trained(folder, device, backend)
    test = Pool.open(test_pool)
    if test.tokens < settings.test_tokens:
        raise UserError(f"{test_pool}: {test.tokens} tokens, expected at least {settings.test_tokens}")
    texts = {"ce": Pool.open(ce_pool)}
    if settings.train_cross_entropy:
        texts["ce_train"] = _seen_in_training(train_pool, run, settings.ce_sequences)
    reference = _baselines(baseline, list(texts))
    measured = _Measured(autoencoder, run, settings, is_finite(autoencoder), test)
    measured.storage()
    # The encoder first: what it diverges on is diverged for every other inference too.
    for name in sorted(settings.inference, key=lambda name: name != "encoder"):
        measured.reconstruction(name)
    spliced = [("ce", name) for name in settings.cross_entropy]
    spliced += [(split, "encoder") for split in texts if split != "ce"]
    if measured.finite and spliced:
        longest = longest_document(texts.values(), settings.ce_sequences)
        model = _language_model(model_file, run.layer, longest, device)
        for split, name in spliced:
            measured.cross_entropy(model, texts[split], split, name, reference[split])
    tables.write_metrics(measured.rows.metrics, folder / METRICS)
    tables.write_documents(measured.rows.documents, folder / DOCUMENTS)
    return {"fingerprint": autoencoder.about["fingerprint"], "seconds": measured.seconds}


@lru_cache(maxsize=1)
def _language_model(model_file: Path, layer: int, tokens: int, device: str) -> LanguageModel:
    """The model that all runs of a job at a layer are spliced into, loaded once."""
    return load_checked(model_file, [layer], tokens, device)


@dataclass
class _Measured:
    """A run under evaluation on a `test` pool, its rows so far, and the seconds that they took."""

    autoencoder: SparseAutoencoder
    run: Run
    settings: Evaluation
    finite: bool
    test: Pool

    def __post_init__(self) -> None:
        self.rows = Rows(self.run.columns)
        self.diverged = not self.finite
        self.seconds: dict[str, float] = {}

    @cached_property
    def encoded(self) -> np.ndarray:
        """int64: the test tokens that are measured."""
        tokens, pool = self.settings.test_tokens, self.test
        return encoded_rows(self.autoencoder, pool.activations[:tokens], pool.path, pool.norms[:tokens])

    @cached_property
    def pursued(self) -> SparseAutoencoder:
        """For pursuits everywhere: they take as many features as the encoder does on these tokens."""
        if not self.autoencoder.counts_vary:
            return self.autoencoder  # and nothing is read for it
        return budgeted(self.autoencoder, self.test.activations[self.encoded])

    def read_by(self, name: str) -> SparseAutoencoder:
        """The autoencoder for an inference."""
        return self.autoencoder if name == ENCODER else self.pursued

    def storage(self) -> None:
        """Bytes and values, which need no tokens."""
        mask = self.autoencoder.mask
        uncovered = 0 if mask is None else mask.uncovered_rows()
        self.rows.add("none", "none", {**storage(self.autoencoder), "uncovered_rows": uncovered})

    def reconstruction(self, name: str) -> None:
        """How well codes of this inference rebuild the test tokens, and whether it diverged."""
        began = time.perf_counter()
        if self.finite:
            pool, encoded = self.test, self.encoded
            share = encoded.size / self.settings.test_tokens
            if name != "encoder" and self.settings.pursued_tokens:
                encoded = encoded[evenly(encoded.size, self.settings.pursued_tokens)]
            _, sums = reconstruct(self.read_by(name), pool.activations[encoded], inferences(name))
            summary = sums.summary()
            self.rows.add(name, "test", summary | {"encoded_share": share})
            per_token = {"relative_error": sums.token_relative_error, "squared_error": sums.squared_error}
            per_token["squared_deviation"] = sums.squared_deviation
            for metric, values in per_token.items():
                self.rows.add_documents(name, "test", metric, pool.document[encoded], values)
            self.diverged |= not summary["relative_error"] <= 1
        self.rows.add(name, "test", {"diverged": float(self.diverged)})
        self.seconds[f"reconstruction_{name}"] = time.perf_counter() - began

    def cross_entropy(
        self, model: LanguageModel, pool: Pool, split: str, name: str, reference: dict[str, float]
    ) -> None:
        """What the model predicts of these documents with the reconstructions of this inference."""
        began = time.perf_counter()
        sequences = self.settings.ce_sequences
        tokens = int(sequence_edges(pool, sequences)[-1])
        spliced = np.array(pool.activations[:tokens])
        encoded = self.autoencoder.encoded(spliced, pool.norms[:tokens]).numpy()
        spliced[encoded], _ = reconstruct(self.read_by(name), spliced[encoded], inferences(name))
        replacement = torch.from_numpy(spliced)
        documents, sums, counts = spliced_sums(model, pool, replacement, self.run.layer, sequences)
        entropy = float(sums.sum() / counts.sum())
        values = {"ce": entropy}
        for metric, ablated in BASELINES.items():
            if ablated in reference:
                values[metric] = recovered(reference[ablated], entropy, reference["ce_clean"])
        self.rows.add(name, split, values)
        self.rows.add_document_sums(name, split, "ce", zip(documents, sums, counts, strict=True))
        self.seconds[f"cross_entropy_{name}{split.removeprefix('ce')}"] = time.perf_counter() - began


def training_documents(train_pool: Path | None, sequences: int) -> tuple[Pool, str]:
    """(training pool, hash of what its first `sequences` documents lie in)."""
    if train_pool is None:
        raise UserError("evaluation.train_cross_entropy: found true, expected the training pool to be given")
    # Asked for each run of a job, and the manifest that is hashed has a seal: every byte is checked once
    # a run, by `_seen_in_training`, before any is measured.
    pool = Pool.open(train_pool, verify=False)
    return pool, pool.prefix_digest(int(sequence_edges(pool, sequences)[-1]))


def _seen_in_training(train_pool: Path | None, run: Run, sequences: int) -> Pool:
    pool, _ = training_documents(train_pool, sequences)
    tokens = int(sequence_edges(pool, sequences)[-1])
    if tokens > run.train_tokens:
        raise UserError(
            f"evaluation.train_cross_entropy: the first {sequences} documents of {pool.path} have {tokens} "
            f"tokens, expected at most train_tokens = {run.train_tokens}"
        )
    pool.verify()
    return pool
