"""What the page shows: contexts, supports, logit effects, encoder against OMP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.pool import Pool
from expander_sae.dashboard.arrays import compact, packed, quantised
from expander_sae.dashboard.rows import TokenRows
from expander_sae.dashboard.sources import Sources
from expander_sae.measurements.index import Index
from expander_sae.measurements.tables import read_metrics
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseDictionary, entries_of, joined
from expander_sae.pursuit.budget import budgeted
from expander_sae.pursuit.codes import codes_of, encoded_rows
from expander_sae.pursuit.inference import INFERENCES
from expander_sae.theory.certificates import flatness

WIDTH = 64
"""Most entries of a column that are shown, the largest in size."""
LOGITS = 10
"""Vocabulary entries at either end of a logit effect."""


@dataclass(frozen=True)
class Limits:
    """What bounds the page: test tokens encoded, those pursued by OMP, features kept."""

    tokens: int = 8192
    omp_tokens: int = 2048
    features: int = 16384


def collect(sources: Sources, limits: Limits, logits: bool = True) -> dict[str, Any]:
    """Everything that the page shows, as JSON.

    Without a model the tokens are shown as numbers and there are no logit effects; of given rows without
    token ids their places are shown.

    Raises:
        UserError: a model of another width.
    """
    autoencoder, pool, spec = sources.autoencoder, sources.pool, sources.spec
    features = sources.features(limits.features)
    return {
        "title": _title(spec, autoencoder),
        "spec": {key: value for key, value in spec.items() if not isinstance(value, dict)},
        "shape": {name: getattr(autoencoder, name) for name in ("m", "n", "d", "k")},
        "metrics": _metrics(sources.folder),
        "features": packed(features),
        **_firings(autoencoder, pool, limits, features),
        **_contexts(sources, limits.tokens),
        "columns": _columns(autoencoder, features),
        "flatness": packed(_flatness(autoencoder)[features].astype("<f4")),
        "logits": _logits(sources, features) if logits and sources.model else None,
    }


def _firings(
    autoencoder: SparseAutoencoder, pool: Pool | TokenRows, limits: Limits, features: np.ndarray
) -> dict[str, Any]:
    """Codes of the encoded tokens by the encoder, and of the first of them by OMP."""
    h, tokens = pool.activations, min(limits.tokens, pool.tokens)
    encoded = encoded_rows(autoencoder, h[:tokens], pool.path, pool.norms[:tokens])
    pursued = encoded[encoded < limits.omp_tokens]
    return {
        "encoded": int(encoded.size),
        "encoder": _code(autoencoder, h, encoded, features, "encoder"),
        "omp": _code(autoencoder, h, pursued, features, "omp") if pursued.size else None,
        "omp_tokens": int(pursued.size),
        "omp_limit": limits.omp_tokens,
    }


def _contexts(sources: Sources, most: int) -> dict[str, Any]:
    """The tokens: how many, each distinct text once and which one stands where, and their documents."""
    pool = sources.pool
    tokens = min(most, pool.tokens)
    if pool.token_id is None:  # nothing is known of the rows but their places
        text = {"unique": [f"row {row}" for row in range(tokens)], "place": packed(np.arange(tokens))}
    else:
        unique, place = np.unique(pool.token_id[:tokens], return_inverse=True)
        text = {"unique": sources.text(unique), "place": packed(place)}
    return {"tokens": tokens, "text": text, "document": packed(pool.document[:tokens].astype(np.int64))}


def _title(spec: dict[str, Any], autoencoder: SparseAutoencoder) -> str:
    where = f"{spec['model']}, layer {spec['layer']}: " if {"model", "layer"} <= spec.keys() else ""
    support = autoencoder.decoder.recipe.family
    shape = f"n = {autoencoder.n:,}, d = {autoencoder.d}, k = {autoencoder.k}"
    seed = f", seed {spec['seed']}" if "seed" in spec else ""
    return f"{where}{support}, {autoencoder.encoder_kind}, {shape}{seed}"


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """The run's rows of metrics.parquet, where it has been evaluated."""
    path = folder / "metrics.parquet"
    if not path.is_file():
        return []
    index = Index(read_metrics(path))
    return [
        {"inference": inference, "split": split, "metric": metric, "value": value}
        for cell, inference, split, metric in index
        for value in index.values(cell, metric, inference, split).values()
    ]


def _code(
    autoencoder: SparseAutoencoder, h: np.ndarray, rows: np.ndarray, features: np.ndarray, inference: str
) -> dict[str, Any]:
    of = autoencoder if inference == "encoder" else budgeted(autoencoder, h, rows)
    code = joined(codes_of(of, h[rows], INFERENCES[inference], inference))
    return compact(code, rows, features, autoencoder.n)


def _columns(autoencoder: SparseAutoencoder, features: np.ndarray) -> dict[str, Any]:
    """The largest entries of each unit-norm column: rows and values, by falling size."""
    dictionary = autoencoder.dictionary()
    width = dictionary.values.shape[1] if isinstance(dictionary, SparseDictionary) else autoencoder.m
    shown = min(WIDTH, width)
    rows = np.empty((len(features), shown), dtype=np.int64)
    values = np.empty((len(features), shown), dtype=np.float32)
    for start in range(0, len(features), 1024):
        part = features[start : start + 1024]
        if isinstance(dictionary, SparseDictionary):
            entries, names = dictionary.values.detach()[part], dictionary.rows[part].long()
        else:
            entries = dictionary.columns(torch.from_numpy(part)).detach()
            names = torch.arange(width).expand_as(entries)
        order = entries.abs().argsort(dim=1, descending=True, stable=True)[:, :shown]
        rows[start : start + 1024] = names.gather(1, order).numpy()
        values[start : start + 1024] = entries.gather(1, order).numpy()
    whole, scale = quantised(values.ravel(), np.array([1.0]), np.zeros(values.size, dtype=np.int64))
    stored = {"rows": packed(rows.ravel()), "values": packed(whole)}
    return {"width": width, "shown": shown, **stored, "scale": scale}


def _flatness(autoencoder: SparseAutoencoder) -> np.ndarray:
    mask = autoencoder.mask
    degrees = None if mask is None else mask.degrees
    return flatness(entries_of(autoencoder.dictionary()), degrees).numpy()


def _logits(sources: Sources, features: np.ndarray) -> dict[str, Any]:
    """The largest and the smallest entries of each feature's logit effects."""
    index, value = [], []
    for effect in sources.logit_effects(features, 256):
        count = min(LOGITS, effect.shape[1] // 2)
        for largest in (True, False):
            top = effect.topk(count, dim=1, largest=largest)
            index.append(top.indices.numpy())
            value.append(top.values.numpy())
    # Each block gave the largest, then the smallest.
    places, values = (
        np.concatenate([np.concatenate(part[side::2]) for side in (0, 1)], axis=1) for part in (index, value)
    )
    unique, place = np.unique(places, return_inverse=True)
    stored = {"place": packed(place.ravel()), "value": packed(values.ravel().astype("<f4"))}
    return {"count": count, "unique": sources.text(unique), **stored}
