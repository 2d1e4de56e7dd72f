"""Every measurement of one trained run, as rows of the tables."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.evaluation.cross_entropy import TRAIN_BASELINES, recovered, sequence_edges, spliced_sums
from expander_sae.evaluation.reconstruction import reconstruct
from expander_sae.evaluation.storage import storage
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.pursuit.inference import inferences
from expander_sae.storage.files import write_json
from expander_sae.training.run_folder import WEIGHTS

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
            listed = ", ".join(sorted(missing))
            raise UserError(f"{path}: no row for {listed} on split {split}; remove it to have it made again")
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
    train_pool: Path | None = None,
) -> None:
    """Evaluate the run in `folder` on held-out tokens and write its three files.

    settings: inference (names), cross_entropy (the names among them whose reconstruction is
    spliced into the model), test_tokens, ce_sequences; with train_cross_entropy the encoder's
    reconstruction is also spliced in on the first ce_sequences documents of `train_pool`.

    Metrics of reconstruction are over the tokens that the autoencoder encodes, those whose norm
    is at most its `norm_limit`; `encoded_share` tells how many these are. A run with a parameter
    that is not finite gets its storage and `diverged` = 1, and nothing else.

    Raises:
        UserError: an unknown inference, a pool with too few tokens, a baseline without its rows.
    """
    for name in settings["inference"]:
        inferences(name)
    autoencoder = SparseAutoencoder.load(folder / WEIGHTS, device, backend)
    about = autoencoder.about
    rows = Rows({column: about["spec"][column] for column in tables.RUN_COLUMNS})
    test = Pool.open(test_pool)
    if test.tokens < settings["test_tokens"]:
        raise UserError(f"{test_pool}: {test.tokens} tokens, expected at least {settings['test_tokens']}")
    texts = {"ce": Pool.open(ce_pool)}
    if settings.get("train_cross_entropy", False):
        texts["ce_train"] = _seen_in_training(train_pool, about["spec"], settings["ce_sequences"])
    reference = _baselines(baseline, list(texts))
    seconds: dict[str, float] = {}
    rows.add("none", "none", dict(storage(autoencoder)))
    uncovered = 0 if autoencoder.mask is None else autoencoder.mask.uncovered_rows()
    rows.add("none", "none", {"uncovered_rows": uncovered})
    diverged = not is_finite(autoencoder)
    broken = diverged
    # The encoder first: what it diverges on is diverged for every other inference too.
    for name in sorted(settings["inference"], key=lambda name: name != "encoder"):
        began = time.perf_counter()
        if not broken:
            summary = _reconstruction_rows(rows, autoencoder, test, settings["test_tokens"], name)
            diverged |= not summary["relative_error"] <= 1
        rows.add(name, "test", {"diverged": float(diverged)})
        seconds[f"reconstruction_{name}"] = time.perf_counter() - began
    spliced = [("ce", name) for name in settings["cross_entropy"]]
    spliced += [(split, "encoder") for split in texts if split != "ce"]
    model = LanguageModel.load(model_file, device)
    for split, name in spliced if not broken else []:
        began = time.perf_counter()
        sequences = settings["ce_sequences"]
        _cross_entropy_rows(rows, autoencoder, model, texts[split], sequences, name, split, reference[split])
        seconds[f"cross_entropy_{name}{split.removeprefix('ce')}"] = time.perf_counter() - began
    tables.write_metrics(rows.metrics, out_metrics)
    tables.write_documents(rows.documents, out_documents)
    write_json(out_timings, {"fingerprint": about["fingerprint"], "seconds": seconds})


def is_finite(autoencoder: SparseAutoencoder) -> bool:
    """Whether every parameter is finite."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in autoencoder.parameters())


def training_documents(train_pool: Path | None, sequences: int) -> tuple[Pool, str]:
    """(training pool, hash of what its first `sequences` documents lie in).

    Raises:
        UserError: no pool was given, or it has fewer documents.
    """
    if train_pool is None:
        raise UserError("evaluation.train_cross_entropy: found true, expected the training pool to be given")
    # Asked for each run of a job, and the manifest that is hashed has a seal: every byte is checked once
    # a run, by `_seen_in_training`, before any is measured.
    pool = Pool.open(train_pool, verify=False)
    return pool, pool.prefix_digest(int(sequence_edges(pool, sequences)[-1]))


def _seen_in_training(train_pool: Path | None, spec: dict[str, Any], sequences: int) -> Pool:
    pool, _ = training_documents(train_pool, sequences)
    tokens = int(sequence_edges(pool, sequences)[-1])
    if tokens > spec["train_tokens"]:
        raise UserError(
            f"evaluation.train_cross_entropy: the first {sequences} documents of {pool.path} have {tokens} "
            f"tokens, expected at most train_tokens = {spec['train_tokens']}"
        )
    pool.verify()
    return pool


def _reconstruction_rows(
    rows: Rows, autoencoder: SparseAutoencoder, pool: Pool, tokens: int, name: str
) -> dict[str, float]:
    encoded = encoded_rows(autoencoder, pool.activations[:tokens], pool.path, pool.norms[:tokens])
    _, sums = reconstruct(autoencoder, pool.activations[encoded], inferences(name))
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
    name: str,
    split: str,
    reference: dict[str, float],
) -> None:
    tokens = int(sequence_edges(pool, sequences)[-1])
    spliced = np.array(pool.activations[:tokens])
    encoded = autoencoder.encoded(spliced, pool.norms[:tokens]).numpy()
    spliced[encoded], _ = reconstruct(autoencoder, spliced[encoded], inferences(name))
    layer = int(rows.columns["layer"])
    documents, sums, counts = spliced_sums(model, pool, torch.from_numpy(spliced), layer, sequences)
    entropy = float(sums.sum() / counts.sum())
    clean = reference["ce_clean"]
    values = {"ce": entropy}
    for metric, ablated in BASELINES.items():
        if ablated in reference:
            values[metric] = recovered(reference[ablated], entropy, clean)
    rows.add(name, split, values)
    rows.add_document_sums(name, split, "ce", zip(documents, sums, counts, strict=True))
