"""Next-token cross-entropy of the language model with a layer's output replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from expander_sae.activations.batching import batches, document_starts
from expander_sae.activations.checked_model import load_checked
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import LOGITS, LOGITS_ON_GPU
from expander_sae.machine.progress import Progress
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.study.run import Run
from expander_sae.training.training_pool import TrainingPool

TRAIN_BASELINES = ("ce_clean", "ce_zero")
"""What is known of the model itself on documents of the training pool."""

_ROWS = 128
"""Tokens whose losses are taken at once. Logits of so many stay below the 32 MB from which the C library maps
memory anew."""

Replacement = Tensor | Callable[[Tensor], Tensor]


def spliced_sums(
    model: LanguageModel,
    ce_pool: Pool,
    replacement: Replacement,
    layer: int,
    sequences: int,
    label: str = "cross-entropy",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(document int32[S], sums float64[S] in nats, counts int64[S]) when the output of `layer` is replaced.

    A document of T tokens has T − 1 next tokens. Used are the first S = `sequences` documents of the pool.
    The replacement is float32[N,m] for the N tokens of these documents, or a function that gives it from
    their activations float32[N,m]. Where `layer` is in the model's `cut`, layers up to it are not run, and
    a replacement that is one vector at every token gives all documents the same logits, which are computed
    for one only.
    """
    edges = sequence_edges(ce_pool, sequences)
    rows = int(edges[-1])
    if callable(replacement):
        replacement = replacement(torch.from_numpy(np.array(ce_pool.activations[:rows])))
    if tuple(replacement.shape) != (rows, ce_pool.m):
        raise ValueError(f"replacement has shape {tuple(replacement.shape)}, expected {(rows, ce_pool.m)}")
    document, ids = ce_pool.document[:rows], ce_pool.token_id[:rows]
    # Where the layers above read token ids too, documents differ all the same.
    if layer in model.cut and bool((replacement == replacement[0]).all()):
        losses = _constant_losses(model, replacement[0], edges, ids, layer)
    else:
        losses = _losses(model, replacement, document, ids, layer, label)
    losses[edges[1:] - 1] = 0.0  # nothing follows a document's last token
    return document[edges[:-1]], np.add.reduceat(losses, edges[:-1]), np.diff(edges) - 1


def _losses(
    model: LanguageModel, replacement: Tensor, document: np.ndarray, ids: np.ndarray, layer: int, label: str
) -> np.ndarray:
    """Loss float64[N] of what follows each token."""
    losses = np.zeros(len(ids), np.float64)
    with Progress(label, len(ids), "token") as progress:
        held = LOGITS_ON_GPU if model.device.type == "cuda" else LOGITS
        for batch in batches(document, ids, max(1, held // model.vocabulary)):
            hidden = torch.zeros(batch.ids.numel(), replacement.shape[1], dtype=replacement.dtype)
            place = torch.from_numpy(batch.place)
            hidden[place] = replacement[torch.from_numpy(batch.rows)].to(hidden.device)
            logits = model.logits_after(hidden.reshape(*batch.ids.shape, -1), layer, batch.ids)
            per_token = _next_token_losses(logits, batch.ids.to(logits.device)).cpu()
            losses[batch.rows] = per_token.reshape(-1)[place].numpy()
            progress.advance(len(batch.rows))
    return losses


def _constant_losses(
    model: LanguageModel, vector: Tensor, edges: np.ndarray, ids: np.ndarray, layer: int
) -> np.ndarray:
    """`_losses` when `vector` [m] stands at every token: a position's logits are then those of
    every document, since the layers above read hidden states and positions only."""
    longest = int(np.diff(edges).max())
    hidden = vector.expand(1, longest, -1)
    logits = model.logits_after(hidden, layer, torch.zeros(1, longest, dtype=torch.int64))[0].float()
    position = np.arange(len(ids)) - np.repeat(edges[:-1], np.diff(edges))
    following = torch.from_numpy(np.roll(ids, -1).astype(np.int64)).to(logits.device)
    place = torch.from_numpy(position).to(logits.device)
    losses = logits.logsumexp(dim=1).double()[place] - logits[place, following].double()
    return losses.cpu().numpy()


def sequence_edges(ce_pool: Pool, sequences: int) -> np.ndarray:
    """First rows of the first `sequences` documents of the ce pool, and the row after the last."""
    edges = document_starts(ce_pool.document)
    if len(edges) - 1 < sequences:
        found = f"found {len(edges) - 1} documents in {ce_pool.path}"
        raise UserError(f"tokens.ce_sequences: {found}, expected {sequences}")
    return edges[: sequences + 1]


def longest_document(pools: Iterable[Pool], sequences: int) -> int:
    """Tokens of the longest of the first `sequences` documents of each pool."""
    return max(int(np.diff(sequence_edges(pool, sequences)).max()) for pool in pools)


def _next_token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """−log p(next token) at every position, float64[B,T]; what stands at the last one is no loss."""
    scores = logits.reshape(-1, logits.shape[-1])
    targets = ids.roll(-1, dims=1).reshape(-1)
    losses = torch.empty(len(targets), dtype=torch.float64, device=scores.device)
    for start in range(0, len(targets), _ROWS):
        part = slice(start, start + _ROWS)
        rows = scores[part].float()
        picked = rows.gather(1, targets[part, None])[:, 0]
        losses[part] = rows.logsumexp(dim=1).double() - picked.double()
    return losses.reshape(ids.shape)


def recovered(ablated: float, reconstructed: float, clean: float) -> float:
    """Share of the cross-entropy lost by ablation that the reconstruction wins back.

    (CE_ablated − CE_reconstructed) / (CE_ablated − CE_clean); 1 is as good as the model itself.
    """
    return (ablated - reconstructed) / (ablated - clean)


def baseline_replacements(
    activations: Tensor, norms: np.ndarray, mean: np.ndarray, limit: float
) -> dict[str, Tensor]:
    """Replacements float32[N,m] that need no autoencoder, by metric name.

    ce_clean: the activations; ce_zero, ce_mean: zeros, the mean kept activation, at every token;
    ce_zero_kept, ce_mean_kept: the same, but tokens whose norm exceeds `limit` pass through, as
    they do when an autoencoder is spliced in, so that they earn nothing.
    """
    passed = torch.from_numpy(norms > limit)[:, None]
    zero = torch.zeros_like(activations)
    means = torch.from_numpy(mean).expand_as(activations)
    return {
        "ce_clean": activations,
        "ce_zero": zero,
        "ce_mean": means,
        "ce_zero_kept": torch.where(passed, activations, zero),
        "ce_mean_kept": torch.where(passed, activations, means),
    }


def write_baseline(
    run: Run,
    sequences: int,
    *,
    model_file: Path,
    ce_pool: Path,
    train_pool: Path,
    out_metrics: Path,
    out_documents: Path,
    train_cross_entropy: bool = False,
    device: str = "cpu",
) -> None:
    """Write the model's own cross-entropies: rows of metrics.parquet and of documents.parquet.

    `run` stands in the rows for the model (see `Run.unaided`); the norm limit and the mean are those of its
    training tokens under its recipe. With `train_cross_entropy` also `ce_clean` and `ce_zero` of as many
    documents of the training pool, on split ``ce_train``.
    """
    training = TrainingPool.read(train_pool, run)
    rows = Rows(run.columns)
    splits = {"ce": Pool.open(ce_pool)}
    if train_cross_entropy and isinstance(training.pool, Pool):
        splits["ce_train"] = training.pool
    model = load_checked(model_file, [run.layer], longest_document(splits.values(), sequences), device)
    for split, pool in splits.items():
        count = int(sequence_edges(pool, sequences)[-1])
        activations = torch.from_numpy(np.array(pool.activations[:count]))
        replacements = baseline_replacements(
            activations, pool.norms[:count], training.scaling.mean, training.scaling.limit
        )
        wanted = replacements if split == "ce" else {name: replacements[name] for name in TRAIN_BASELINES}
        for metric, replacement in wanted.items():
            documents, sums, counts = spliced_sums(model, pool, replacement, run.layer, sequences, metric)
            rows.add("none", split, {metric: float(sums.sum() / counts.sum())})
            rows.add_document_sums("none", split, metric, zip(documents, sums, counts, strict=True))
    tables.write_metrics(rows.metrics, out_metrics)
    tables.write_documents(rows.documents, out_documents)
