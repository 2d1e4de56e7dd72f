"""Sketches of sets, so that a corpus of any size is compared in a few hundred bytes a document.

MinHash (Broder 1997), by datasketch: a sketch keeps, of each of some random orders of all numbers, the first
one that the set holds. The share of these in which two sets agree is on average their Jaccard similarity
J = |A ∩ B| / |A ∪ B|.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
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

_FEWEST = 1 << 10
_LINK = struct.Struct("<Ii")
_ROW = np.dtype(
    [
        ("size", "<u4"),
        ("bytes", np.uint8, ORDERS),
        ("links", [("first", "<u4"), ("earlier", "<i4")], LOOKED_UP),
    ]
)
"""A document in the file: with each first element that is looked up, the document before it in its list."""
_LINKS = _ROW.itemsize - LOOKED_UP * _LINK.size

_SPURIOUS = 1 / 256  # two sketches agree in the last byte of a first element that differs


class Sketches:
    """Sketches of the documents that were added, and a search for near ones.

    They lie in a file without a name in `folder`, 388 bytes a document, which is gone when this is closed or
    the process ends. What a search begins with is held, 64 to 128 bytes a document: the newest document of
    every list of those that may have the same first element.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # Open as long as this is: `close` closes it, which the check cannot see. Unbuffered, since it is read
        # and written at places.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._heads = np.full(LOOKED_UP * _FEWEST, -1, np.int32)
        self.count = 0

    def close(self) -> None:
        """Forget all documents."""
        self._file.close()

    def sketch(self, elements: Collection[int]) -> np.ndarray:
        """uint32 [ORDERS] of a set of 64-bit numbers that are hashes; their upper halves are read."""
        minhash = _minhash()
        minhash.clear()
        minhash.update_batch([element >> 32 for element in elements])
        return minhash.hashvalues

    def shares(self, sketch: np.ndarray, size: int) -> np.ndarray:
        """Estimates of |A ∩ B| / min(|A|, |B|), from 0 to 1, with those earlier documents that were found."""
        found = self._found(sketch[:LOOKED_UP])
        rows = np.frombuffer(b"".join(found.values()), _ROW)
        alike = (rows["bytes"] == sketch.astype(np.uint8)).mean(1)
        similarity = np.clip((alike - _SPURIOUS) / (1 - _SPURIOUS), 0, 1)
        sizes = rows["size"].astype(np.float64)
        common = similarity * (sizes + size) / (1 + similarity)
        return np.minimum(common / np.minimum(sizes, size), 1.0)

    def add(self, sketch: np.ndarray, size: int) -> None:
        """Remember a document of `size` elements."""
        if LOOKED_UP * self.count == 2 * len(self._heads):
            self._spread()
        row = np.zeros(1, _ROW)
        row["size"], row["bytes"], row["links"]["first"] = size, sketch.astype(np.uint8), sketch[:LOOKED_UP]
        self._write(row, self.count)
        self.count += 1

    def _found(self, firsts: np.ndarray) -> dict[int, bytes]:
        """The documents that have one of these first elements, of each the newest ones, with their rows."""
        descriptor, size = self._file.fileno(), _ROW.itemsize
        read: dict[int, bytes] = {}
        found: dict[int, bytes] = {}
        documents = self._heads[self._lists(firsts)]
        for order, (wanted, document) in enumerate(zip(firsts.tolist(), documents.tolist(), strict=True)):
            place = _LINKS + order * _LINK.size
            for _ in range(NEWEST):
                if document < 0:
                    break
                row = read.get(document)
                if row is None:
                    row = read[document] = os.pread(descriptor, size, document * size)
                first, earlier = _LINK.unpack_from(row, place)
                if first == wanted:
                    found[document] = row
                document = earlier
        return found

    def _write(self, rows: np.ndarray, start: int) -> None:
        """Put documents at the heads of their lists, and from number `start` on into the file."""
        lists = self._lists(rows["links"]["first"]).ravel()
        numbers = np.arange(start, start + len(rows), dtype=np.int32).repeat(LOOKED_UP)
        turn = np.argsort(lists, kind="stable")
        lists, numbers = lists[turn], numbers[turn]
        before = self._heads[lists]
        same = np.flatnonzero(lists[1:] == lists[:-1])
        before[same + 1] = numbers[same]
        earlier = np.empty_like(before)
        earlier[turn] = before
        rows["links"]["earlier"] = earlier.reshape(-1, LOOKED_UP)
        self._heads[lists] = numbers  # the last one of a list stays
        if os.pwrite(self._file.fileno(), rows.tobytes(), start * _ROW.itemsize) < rows.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _lists(self, firsts: np.ndarray) -> np.ndarray:
        """int64: in which list a document is by each of its first elements."""
        each = len(self._heads) // LOOKED_UP
        return firsts % each + np.arange(0, len(self._heads), each)

    def _spread(self) -> None:
        """Twice as many lists of documents: each then has two on average again, or fewer."""
        lists = 2 * len(self._heads)
        self._heads = np.zeros(0, np.int32)  # let go of before as much is asked for twice
        self._heads = np.full(lists, -1, np.int32)
        for start in range(0, self.count, _FEWEST):
            raw = os.pread(self._file.fileno(), _FEWEST * _ROW.itemsize, start * _ROW.itemsize)
            self._write(np.frombuffer(bytearray(raw), _ROW), start)


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
