"""Which documents hold which 64-bit hashes, in arrays: 12 bytes for each hash of each document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

RECENT = 1 << 17
"""Hashes that wait in a dictionary until they are sorted in among the others. An entry of a dictionary takes
100 bytes that lie scattered, so that a process which frees a million of them keeps their memory."""


class GramIndex:
    """Documents are numbered from 0 in the order in which they are added."""

    def __init__(self, recent: int = RECENT) -> None:
        self._most = recent
        self._hashes, self._documents = np.zeros(0, np.uint64), np.zeros(0, np.int32)  # sorted by hash
        self._recent: dict[int, int | list[int]] = {}  # most are of one document: no list for these
        self._waiting: list[np.ndarray] = []  # the same, a document each
        self.sizes: list[int] = []

    def add(self, hashes: Collection[int]) -> Counter[int]:
        """Remember a document of these distinct hashes; returns how many each earlier document shares."""
        array = np.fromiter(hashes, np.uint64, len(hashes))
        shared = Counter(self._sharing(array).tolist())
        number, recent = len(self.sizes), self._recent
        for one in hashes:
            known = recent.setdefault(one, number)
            if isinstance(known, list):
                shared.update(known)
                known.append(number)
            elif known != number:
                shared[known] += 1
                recent[one] = [known, number]
        self.sizes.append(len(array))
        self._waiting.append(array)
        if len(recent) >= self._most:
            self._sort_in()
        return shared

    def _sharing(self, hashes: np.ndarray) -> np.ndarray:
        """int32: the documents of each of these hashes that is sorted in."""
        if not len(self._hashes):
            return self._documents
        hashes = np.sort(hashes)  # neighbours are then looked up in the same cache lines
        starts = np.searchsorted(self._hashes, hashes)
        there = self._hashes.take(starts, mode="clip") == hashes
        starts, stops = starts[there], np.searchsorted(self._hashes, hashes[there], "right")
        counts = stops - starts
        return self._documents[np.arange(counts.sum()) + (stops - np.cumsum(counts)).repeat(counts)]

    def _sort_in(self) -> None:
        """Put what waits among the others."""
        if self._waiting:
            hashes = np.concatenate(self._waiting)
            sizes = [*map(len, self._waiting)]
            numbers = np.arange(len(self.sizes) - len(sizes), len(self.sizes), dtype=np.int32).repeat(sizes)
            order = np.argsort(hashes)
            places = np.searchsorted(self._hashes, hashes[order])
            self._hashes = np.insert(self._hashes, places, hashes[order])
            self._documents = np.insert(self._documents, places, numbers[order])
            self._recent, self._waiting = {}, []

    def documents(self) -> list[np.ndarray]:
        """The hashes of every document, uint64, in the order in which they were added."""
        self._sort_in()
        order = np.argsort(self._documents, kind="stable")
        return np.split(self._hashes[order], np.cumsum(self.sizes, dtype=int))[:-1]
