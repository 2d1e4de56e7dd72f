"""Sketches of sets, so that a corpus of any size is compared in a few hundred bytes a document.

MinHash (Broder 1997), by datasketch: a sketch keeps, of each of some random orders of all numbers, the first
one that the set holds. The share of these in which two sets agree is on average their Jaccard similarity
J = |A ∩ B| / |A ∪ B|.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from expander_sae.errors import UserError

if TYPE_CHECKING:
    from datasketch import MinHash

ORDERS = 128
"""Random orders of a sketch: the standard error of J is √(J(1 − J)/128), at most 0.044."""

LOOKED_UP = 32
"""Of these, the orders by whose first elements earlier documents are found: two of similarity J with
probability 1 − (1 − J)³², which is 0.98 at J = 1/9, where sets of one size share a fifth."""

NEWEST = 64
"""Most documents that are looked at for one first element. So a document takes a bounded time, whatever
boilerplate it shares with how many others."""

SAMPLED = 1 << 18
"""Most elements that a `Sample` holds."""

_SPURIOUS = 1 / 256  # two sketches agree in the last byte of a first element that differs


class Sketches:
    """Sketches of the documents that were added, in about 500 bytes each, and a search for near ones."""

    def __init__(self) -> None:
        self._sizes = np.zeros(0, np.uint32)
        self._bytes = np.zeros((0, ORDERS), np.uint8)
        self._firsts = np.zeros((0, LOOKED_UP), np.uint32)
        self._earlier = np.zeros((0, LOOKED_UP), np.int32)
        self._heads = np.full((LOOKED_UP, 1 << 10), -1, np.int32)
        self._orders = np.arange(LOOKED_UP)
        self.count = 0

    def sketch(self, elements: Collection[int]) -> np.ndarray:
        """uint32 [ORDERS] of a set of 64-bit numbers that are hashes; their upper halves are read."""
        minhash = _minhash()
        minhash.clear()
        minhash.update_batch([element >> 32 for element in elements])
        return minhash.hashvalues

    def shares(self, sketch: np.ndarray, size: int) -> np.ndarray:
        """Estimates of |A ∩ B| / min(|A|, |B|), from 0 to 1, with those earlier documents that were found."""
        documents = self._found(sketch[:LOOKED_UP])
        alike = (self._bytes[documents] == sketch.astype(np.uint8)).mean(1)
        similarity = np.clip((alike - _SPURIOUS) / (1 - _SPURIOUS), 0, 1)
        sizes = self._sizes[documents].astype(np.float64)
        common = similarity * (sizes + size) / (1 + similarity)
        return np.minimum(common / np.minimum(sizes, size), 1.0)

    def add(self, sketch: np.ndarray, size: int) -> None:
        """Remember a document of `size` elements."""
        if self.count == len(self._sizes):
            self._grow()
        if self.count == 2 * self._heads.shape[1]:
            self._spread()
        number, self.count = self.count, self.count + 1
        self._sizes[number], self._bytes[number] = size, sketch.astype(np.uint8)
        self._firsts[number] = sketch[:LOOKED_UP]
        place = self._orders, self._firsts[number] % self._heads.shape[1]
        self._earlier[number] = self._heads[place]
        self._heads[place] = number

    def _found(self, firsts: np.ndarray) -> np.ndarray:
        """The documents that have one of these first elements, of each the newest ones."""
        orders, wanted = self._orders, firsts
        documents = self._heads[orders, firsts % self._heads.shape[1]]
        found = []
        for _ in range(NEWEST):
            there = documents >= 0
            if not there.any():
                break
            documents, orders, wanted = documents[there], orders[there], wanted[there]
            found.append(documents[self._firsts[documents, orders] == wanted])
            documents = self._earlier[documents, orders]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int32)

    def _grow(self) -> None:
        """Room for twice as many documents; what was not yet written to takes no memory."""
        room = max(1 << 10, 2 * self.count)
        for name in ("_sizes", "_bytes", "_firsts", "_earlier"):
            held = getattr(self, name)
            wider = np.empty((room, *held.shape[1:]), held.dtype)
            wider[: self.count] = held
            setattr(self, name, wider)

    def _spread(self) -> None:
        """Twice as many lists of documents: each then has two on average again, or fewer."""
        buckets = 2 * self._heads.shape[1]
        self._heads = np.full((LOOKED_UP, buckets), -1, np.int32)
        for order in range(LOOKED_UP):
            bucket = self._firsts[: self.count, order] % buckets
            documents = np.argsort(bucket, kind="stable").astype(np.int32)
            same = bucket[documents[1:]] == bucket[documents[:-1]]
            self._earlier[documents[0], order] = -1
            self._earlier[documents[1:], order] = np.where(same, documents[:-1], -1)
            self._heads[order, bucket[documents]] = documents  # the last one of a bucket stays


@lru_cache(maxsize=1)
def _minhash() -> MinHash:
    """Its random orders take longer to make than a sketch. A corpus that needs none imports no datasketch."""
    try:
        from datasketch import MinHash
    except ImportError:
        found = "found no package datasketch, by which later documents are compared"
        raise UserError(f"corpus.exact_tokens: {found}; pip install 'expander-sae[workflow]'") from None
    return MinHash(ORDERS, seed=1, hashfunc=int, scheme="affine32")


class Sample:
    """The elements of a set of 64-bit hashes below a bound, which is halved where they become too many.

    Of two such samples those below the smaller bound are a sample of the union by one rule, so that shares of
    elements can be estimated from them. As long as nothing was left out they are exact.
    """

    def __init__(self, most: int = SAMPLED) -> None:
        self._most, self.bound = most, 1 << 64
        self._held = np.zeros(0, np.uint64)
        self._new: list[np.ndarray] = []
        self._waiting = 0

    def update(self, elements: Collection[int]) -> None:
        """Add elements."""
        new = np.fromiter(elements, np.uint64, len(elements))
        self._new.append(new[new <= np.uint64(self.bound - 1)])
        self._waiting += len(self._new[-1])
        if 4 * self._waiting > self._most:
            self._gather()

    def _gather(self) -> None:
        """Put what is waiting beside what is held."""
        self._held = np.unique(np.concatenate([self._held, *self._new]))
        self._new, self._waiting = [], 0
        while len(self._held) > self._most:
            self.bound //= 2
            self._held = self._held[self._held <= np.uint64(self.bound - 1)]

    @property
    def held(self) -> np.ndarray:
        """uint64, sorted: the elements below the bound."""
        self._gather()
        return self._held

    @property
    def kept(self) -> float:
        """Share of the elements that are held, from 0 to 1."""
        self._gather()
        return self.bound / (1 << 64)

    def __len__(self) -> int:
        """Number of elements, estimated."""
        return round(len(self.held) / self.kept)

    def share_in(self, other: Sample) -> float:
        """Share of the elements that also stand in another set; 0 for none."""
        mine, others = self.held, other.held
        mine = mine[mine <= np.uint64(min(self.bound, other.bound) - 1)]
        return np.isin(mine, others, assume_unique=True).sum().item() / len(mine) if len(mine) else 0.0
