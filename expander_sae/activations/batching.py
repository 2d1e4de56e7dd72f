"""Documents of similar length together, padded on the right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some documents of a token sequence: ids int64[B,T], 0 at padding, and int64[tokens] where its tokens
    stand: `rows` in the sequence, `place` in the batch flattened to B·T."""

    ids: Tensor
    rows: np.ndarray
    place: np.ndarray


def document_starts(document: np.ndarray) -> np.ndarray:
    """First row of each document of a sequence of document numbers, and its length at the end."""
    changes = np.flatnonzero(document[1:] != document[:-1]) + 1
    return np.concatenate([[0], changes, [len(document)]]).astype(np.int64)


def batches(document: np.ndarray, token_id: np.ndarray, batch_tokens: int) -> Iterator[Batch]:
    """Every document once, at most `batch_tokens` padded tokens a batch; a longer one is a batch of its own.

    Both arrays are int[N], documents contiguous. The longest come first, so that a device too small fails at
    once.
    """
    if not len(document):
        return
    edges = document_starts(document)
    starts, lengths = edges[:-1], np.diff(edges)
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        longest = int(lengths[order[first]])
        count = max(1, batch_tokens // longest)
        chosen = order[first : first + count]
        first += count
        size = lengths[chosen]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        rows = np.repeat(starts[chosen], size) + within
        place = np.repeat(np.arange(len(chosen)) * longest, size) + within
        ids = torch.zeros(len(chosen) * longest, dtype=torch.int64)
        ids[torch.from_numpy(place)] = torch.from_numpy(token_id[rows].astype(np.int64))
        yield Batch(ids.reshape(len(chosen), longest), rows, place)
