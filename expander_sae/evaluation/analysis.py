"""What a trained run's codes and columns are like, on the held-out tokens that it encodes.

Every analysis is a function from a `Subject` to rows; no language model is needed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from expander_sae.activations.label_table import LabelTable
from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.evaluation import features
from expander_sae.evaluation.certificate_rows import column_values, evenly, support_values
from expander_sae.evaluation.collisions import collisions, relabelled
from expander_sae.evaluation.features import FiringSets, token_entropy
from expander_sae.evaluation.label_rows import LABELLED
from expander_sae.evaluation.reconstruction import reconstruct
from expander_sae.evaluation.subject import Subject, encoded
from expander_sae.evaluation.trained import is_finite, load_trained
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.pursuit.inference import inferences
from expander_sae.study.run import Analysis, Run

FIRST_TOKENS = 1024
"""Smallest size of the test set at which dead features are counted; then twice as many, and so on."""


def pursuit_rows(subject: Subject, rows: Rows) -> None:
    """How well each pursuit decodes the same few tokens; the run's own codes and OMP always stand beside."""
    few = subject.activations[evenly(len(subject.activations), subject.settings.pursuit_tokens)]
    for name in dict.fromkeys([subject.by, "omp", *subject.settings.pursuits]):
        summary = reconstruct(subject.read_by(name), few, inferences(name))[1].summary()
        rows.add(name, "pursuit", {key: summary[key] for key in ("relative_error", "explained_variance")})


def dead_feature_sizes(tokens: int) -> list[int]:
    """1024, 2048, … as far as there are test tokens, and all of them."""
    doublings = range(max(0, math.ceil(math.log2(max(tokens, 1) / FIRST_TOKENS))))
    return [*(FIRST_TOKENS << doubling for doubling in doublings), tokens]


def feature_rows(subject: Subject, rows: Rows) -> None:
    """Dead features by size of the test set, and what features fire on."""
    values = {"live_features": float(subject.live.sum())}
    for tokens in dead_feature_sizes(subject.settings.test_tokens):
        # Of so many test tokens, those that are encoded.
        size = int(np.searchsorted(subject.place, tokens))
        if size:
            values[f"dead_fraction_t{tokens}"] = features.dead_fraction(subject.sets, size)
    if subject.live.any():
        for name, sets in (("token_entropy", subject.sets), ("token_entropy_null", subject.chance)):
            values[name] = float(token_entropy(sets, subject.token_id)[subject.live].mean())
    rows.add(subject.by, "test", values)


def collision_rows(subject: Subject, rows: Rows) -> None:
    """Rows shared by the columns that fire together; nothing for a dense dictionary."""
    mask = subject.autoencoder.mask
    if mask is None:
        return
    values = collisions(subject.code, mask).summary()
    edges = values.pop("collision_duplicate_edges")
    chance = collisions(relabelled(subject.code, subject.autoencoder.n, subject.seed), mask).summary()
    values |= {f"{key}_null": chance[key] for key in values}
    rows.add(subject.by, "test", values | {"collision_duplicate_edges": edges})


def certificate_rows(subject: Subject, rows: Rows) -> None:
    """Certificates of the columns, and what is left of them on the supports in use."""
    rows.add("none", "none", column_values(subject.autoencoder, subject.seed))
    rows.add(subject.by, "test", support_values(subject.autoencoder, subject.code))


def novelty_rows(subject: Subject, rows: Rows) -> None:
    """Features without a counterpart in the reference, each beside what chance would give.

    Chance is, for the Jaccard overlap, firing sets drawn at random at the same rates; for the cosine,
    the same columns with random signs. It has next to no counterparts: what a dictionary of its own would
    find is told by a dense run, which is compared with another seed of itself.
    """
    other = subject.reference
    if other is None or not subject.live.any():
        return
    theirs = FiringSets.of([encoded(other, subject.activations)], other.n)
    jaccard = features.best_jaccard(subject.sets, theirs)
    columns, others = subject.autoencoder.dictionary(), other.dictionary()
    values: dict[str, float] = {}
    for null, best in (("", jaccard), ("_null", features.best_jaccard(subject.chance, theirs))):
        values[f"novel_share_jaccard{null}"] = float((best[subject.live] < features.JACCARD_THRESHOLD).mean())
    for null, ours in (("", columns), ("_null", features.random_signs(columns, subject.seed))):
        best = features.best_cosine(ours, others).cpu().numpy()
        values[f"novel_share_cosine{null}"] = float((best[subject.live] < features.COSINE_THRESHOLD).mean())
    novel = subject.live & (jaccard < features.JACCARD_THRESHOLD)
    if novel.any():
        # Rarer or commoner than the rest, and entropy is at most log₂ of the rate: a null of their own.
        for null, sets in (("", subject.sets), ("_null", subject.chance)):
            entropy = token_entropy(sets, subject.token_id)[novel]
            values[f"token_entropy_novel{null}"] = float(entropy.mean())
    rows.add(subject.by, "test", values)


ANALYSES: dict[str, Callable[[Subject, Rows], None]] = {
    "pursuits": pursuit_rows,
    "features": feature_rows,
    "collisions": collision_rows,
    "certificates": certificate_rows,
    "novelty": novelty_rows,
    **LABELLED,
}


def check_analyses(names: Sequence[str]) -> None:
    """Raise `UserError` for a name that is none of `ANALYSES`."""
    unknown = next((name for name in names if name not in ANALYSES), None)
    if unknown is not None:
        raise UserError(f"evaluation.analyses: found {unknown!r}, expected some of {', '.join(ANALYSES)}")


def analyse_run(
    folder: Path,
    settings: Analysis,
    test_pool: Path,
    out: Path,
    labels: Path | None = None,
    device: str = "cpu",
    backend: str = "auto",
) -> dict[str, float]:
    """Write the rows of the analyses of the run in `folder`; returns the seconds that each took.

    `labels` is the table of the test tokens' labels, which some analyses read. A run with a parameter that is
    not finite has no rows, and none is compared with such a reference.
    """
    check_analyses(settings.analyses)
    for name in (*settings.pursuits, *settings.inference):
        inferences(name)
    autoencoder, run = load_trained(folder, device, backend)
    rows = Rows(run.columns)
    seconds: dict[str, float] = {}
    if is_finite(autoencoder):
        subject = _subject(autoencoder, run, settings, Pool.open(test_pool))
        if "novelty" in settings.analyses and settings.reference is not None:
            subject.reference = _reference(Path(settings.reference), run, device, backend)
        if not LABELLED.keys().isdisjoint(settings.analyses):
            subject.labels = _labels(labels, Pool.open(test_pool, verify=False), settings.test_tokens)
        for name in ANALYSES:
            if name in settings.analyses:
                began = time.perf_counter()
                ANALYSES[name](subject, rows)
                seconds[name] = time.perf_counter() - began
    tables.write_metrics(rows.metrics, out)
    return seconds


def _subject(autoencoder: SparseAutoencoder, run: Run, settings: Analysis, pool: Pool) -> Subject:
    tokens = settings.test_tokens
    if pool.tokens < tokens:
        raise UserError(f"{pool.path}: {pool.tokens} tokens, expected at least {tokens}")
    place = encoded_rows(autoencoder, pool.activations[:tokens], pool.path, pool.norms[:tokens])
    return Subject(autoencoder, pool.activations[place], pool.token_id[place], place, run.seed, settings)


def _labels(path: Path | None, pool: Pool, tokens: int) -> LabelTable:
    if path is None:
        raise UserError("labels: found no table of the test tokens' labels, expected one")
    found = LabelTable.read(path)
    found.check(pool.document[:tokens], pool.position[:tokens], pool.token_id[:tokens])
    return found


def _reference(folder: Path, of: Run, device: str, backend: str) -> SparseAutoencoder | None:
    found, run = load_trained(folder, device, backend)
    if run.m != of.m:
        raise UserError(f"{folder}: width {run.m}, expected that of the run, {of.m}")
    return found if is_finite(found) else None
