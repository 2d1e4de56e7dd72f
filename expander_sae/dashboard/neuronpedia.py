"""Features as JSON batches in the format of SAEDashboard, which Neuronpedia takes.

What the keys mean is read from sae-dashboard 0.8.0, its modules neuronpedia_dashboard and
neuronpedia_converter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.dashboard.activity import Activity, Correlated
from expander_sae.dashboard.sources import Sources
from expander_sae.errors import UserError
from expander_sae.rng import Integers
from expander_sae.storage.files import atomic_path

AT_ONCE = 128
"""Features a file, which is also how many Neuronpedia takes at once."""
TOP, INTERVALS, EACH = 20, 5, 5
"""Examples of the largest activations; intervals from 0 to the largest, and random examples of each."""
CONTEXT, BEFORE = 128, 96
"""Tokens of an example at most, and how many of them stand before its own where the document is longer."""
BINS, LOGITS, ROWS = 50, 10, 3
"""Of a histogram; vocabulary entries at either end; rows of a table of neurons or features."""


@dataclass(frozen=True)
class Names:
    """What the batches are called by: the model as Neuronpedia calls it, the layer, the set, the corpus."""

    model: str
    layer: int
    set: str
    dataset: str


class Texts:
    """The words of the first tokens, and which of them an example shows: its own document's."""

    def __init__(self, sources: Sources, tokens: int) -> None:
        pool = sources.pool
        if pool.token_id is None:
            raise UserError(f"{pool.path}: found no token ids, expected --token-ids FILE: examples are text")
        self.tokens = min(tokens, pool.tokens)
        unique, place = np.unique(pool.token_id[: self.tokens], return_inverse=True)
        words = sources.text(unique)
        self._words = [words[at] for at in place]
        document = pool.document[: self.tokens]
        first = np.flatnonzero(np.concatenate([[True], document[1:] != document[:-1]]))
        lengths = np.diff(np.append(first, self.tokens))
        self.documents, self.longest = len(first), int(lengths.max())
        self._first, self._end = np.repeat(first, lengths), np.repeat(first + lengths, lengths)

    def context(self, row: int) -> slice:
        """The rows that are shown of a token's document."""
        first, end = int(self._first[row]), int(self._end[row])
        start = max(first, min(row - BEFORE, end - CONTEXT))
        return slice(start, min(end, start + CONTEXT))

    def words(self, shown: slice) -> list[str]:
        return self._words[shown]


def write_batches(
    sources: Sources, names: Names, folder: Path, tokens: int, most: int, logits: bool = True
) -> int:
    """Write batch-0.json, batch-1.json, … of at most `most` features into the folder; returns how many.

    Activations are the encoder's on the first `tokens`. Without a model there are no logit effects.

    Raises:
        UserError: no token ids, a model of another width, or numbers that are not finite.
    """
    texts, activity = Texts(sources, tokens), Activity(sources, tokens)
    features = sources.features(most)
    effects: Iterator[Tensor | None] = repeat(None)
    if logits and sources.model is not None:
        effects = sources.logit_effects(features, AT_ONCE)
    starts = range(0, len(features), AT_ONCE)
    for number, (start, effect) in enumerate(zip(starts, effects, strict=False)):
        part = features[start : start + AT_ONCE]
        batch = {"model_id": names.model, "layer": names.layer, "sae_set": names.set, "sae_id_suffix": None}
        shared: dict[str, Any] = {"n_prompts_total": texts.documents, "n_tokens_in_prompt": texts.longest}
        shared |= {"dataset": names.dataset, "decoder_weights_dist": [], "vector": []}
        parts = (_aligned(sources, part), _correlated(activity, part), _effects(sources, effect, part))
        records = [
            {"feature_index": int(feature), **tables, **_activations(int(feature), activity, texts), **shared}
            for feature, tables in zip(part, map(_merged, *parts), strict=True)
        ]
        _write(folder / f"batch-{number}.json", {**batch, "features": records})
    return len(starts)


def _write(path: Path, batch: dict[str, Any]) -> None:
    text = json.dumps(batch, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _finite(sources: Sources, what: str, values: Tensor, features: np.ndarray) -> Tensor:
    """`values` [features, …] if all are numbers: JSON has no others."""
    wrong = (~torch.isfinite(values)).any(dim=1).nonzero().flatten()
    if len(wrong):
        found = f"found {what} of feature {features[int(wrong[0])]} that are not finite"
        raise UserError(f"{sources.folder}: {found}, expected numbers")
    return values


def _merged(*parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


def _short(values: Iterable[float]) -> list[float]:
    """Four digits of each: SAEDashboard's three decimals would lose small activations."""
    return [float(f"{value:.4g}") for value in values]


def _aligned(sources: Sources, features: np.ndarray) -> list[dict[str, Any]]:
    """The largest entries of each column, and their shares of its sum of sizes."""
    columns = sources.autoencoder.dictionary().columns(torch.from_numpy(features)).detach().double()
    columns = _finite(sources, "values", columns, features)
    top = columns.topk(min(ROWS, columns.shape[1]), dim=1)
    shares = top.values.abs() / columns.abs().sum(dim=1, keepdim=True)
    return [
        {
            "neuron_alignment_indices": index.tolist(),
            "neuron_alignment_values": _short(value.numpy()),
            "neuron_alignment_l1": _short(share.numpy()),
        }
        for index, value, share in zip(top.indices, top.values, shares, strict=True)
    ]


def _correlated(activity: Activity, features: np.ndarray) -> list[dict[str, Any]]:
    """The format's `l1` of what is correlated is a cosine."""

    def table(kind: str, found: Correlated) -> dict[str, Any]:
        names = (f"correlated_{kind}_indices", f"correlated_{kind}_l1", f"correlated_{kind}_pearson")
        return dict(zip(names, (found.index, _short(found.cosine), _short(found.pearson)), strict=True))

    pairs = zip(activity.neurons(features, ROWS), activity.features(features, ROWS), strict=True)
    return [table("neurons", neurons) | table("features", others) for neurons, others in pairs]


def _histogram(name: str, values: np.ndarray) -> dict[str, list[float]]:
    """Counts in equal bins, and the middles of these; nothing of no values."""
    heights, edges = np.histogram(values, BINS) if len(values) else (np.empty(0, int), np.empty(1))
    middles = (edges[1:] + edges[:-1]) / 2
    return {
        f"{name}_hist_data_bar_heights": heights.tolist(),
        f"{name}_hist_data_bar_values": _short(middles),
    }


def _effects(sources: Sources, effect: Tensor | None, features: np.ndarray) -> list[dict[str, Any]]:
    """What each feature makes less and more likely, from the end, and the histogram of all effects."""
    if effect is None:
        nothing: dict[str, Any] = {"neg_str": [], "neg_values": [], "pos_str": [], "pos_values": []}
        return [nothing | _histogram("logits", np.empty(0))] * len(features)
    effect = _finite(sources, "logit effects", effect, features)
    most = min(LOGITS, effect.shape[1])
    ends = {name: effect.topk(most, dim=1, largest=name == "pos") for name in ("neg", "pos")}
    unique, place = np.unique(np.stack([end.indices.numpy() for end in ends.values()]), return_inverse=True)
    words = np.array(sources.text(unique), dtype=object)[place].reshape(2, -1, most)
    found = []
    for row, values in enumerate(effect.numpy()):
        record: dict[str, Any] = {}
        for text, (name, end) in zip(words, ends.items(), strict=True):
            record |= {f"{name}_str": list(text[row]), f"{name}_values": _short(end.values[row].numpy())}
        found.append(record | _histogram("logits", values))
    return found


def _activations(feature: int, activity: Activity, texts: Texts) -> dict[str, Any]:
    """How often it fires and how strongly, and the examples: the largest, then some of each interval."""
    rows, values = activity.of(feature)
    record: dict[str, Any] = {"frac_nonzero": len(rows) / len(activity.rows), "activations": []}
    record |= _histogram("freq", values)
    if not len(rows):
        return record
    written = [0.0] * texts.tokens
    for row, value in zip(rows, _short(values), strict=True):
        written[row] = value
    largest = float(values.max())
    groups = [((-1.0, largest, -1.0), rows[np.argsort(-values, kind="stable")[:TOP]])]
    edges = np.linspace(0, largest, INTERVALS + 1)
    draws = Integers(feature, "examples of intervals")
    for low, high in reversed(list(pairwise(edges))):
        inside = rows[(values > low) & (values <= high)]
        # The lowest interval has the tokens on which it does not fire too, which are no examples of it.
        silent = len(activity.rows) - len(rows) if low == 0 else 0
        share = (len(inside) + silent) / len(activity.rows)
        drawn = inside[np.sort(draws.permutation(len(inside))[:EACH])]
        groups.append(((low, high, share), drawn))
    for bounds, examples in groups:
        ends = dict(zip(("bin_min", "bin_max", "bin_contains"), _short(np.array(bounds)), strict=True))
        for row in examples:
            shown = texts.context(int(row))
            example = {"tokens": texts.words(shown), "values": written[shown]}
            example["qualifying_token_index"] = int(row) - shown.start
            record["activations"].append(ends | example)
    return record
