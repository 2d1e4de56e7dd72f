"""Labels of held-out tokens, by family, and the two halves of the documents that features are read on.

A label counts if it is on at least 3 in 1,000 tokens and in at least two documents of each half: fewer
are too few to choose a feature by. That depends on the labels alone, so that every dictionary is read by the
same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_SHARE = 0.003
LEAST_DOCUMENTS = 2


@dataclass(frozen=True, eq=False)
class Documents:
    """The document of each token, int64 [N], numbered 0 … count − 1 in the order of the tokens."""

    index: np.ndarray
    count: int

    @staticmethod
    def of(document: np.ndarray) -> Documents:
        """From the documents' numbers, [N]; the tokens of a document stand together."""
        new = np.concatenate([[True], document[1:] != document[:-1]])[: len(document)]
        return Documents(np.cumsum(new) - 1, int(new.sum()))

    @property
    def odd(self) -> np.ndarray:
        """bool [N]: tokens of the second half. Documents alternate, so that a half has some of every file."""
        return self.index % 2 == 1


@dataclass(frozen=True, eq=False)
class Family:
    """Labels that exclude each other: int64 [N], each token's place in `names`, or −1 for none of them."""

    name: str
    label: np.ndarray
    names: tuple[str, ...]


def family_of(name: str, labels: Sequence[str | int | None] | np.ndarray, documents: Documents) -> Family:
    """The family of those labels that count; `labels` has one for each token, None being none."""
    known = sorted({str(label) for label in labels if label is not None})
    place = {label: index for index, label in enumerate(known)}
    code = np.array([-1 if label is None else place[str(label)] for label in labels], dtype=np.int64)
    counts = np.bincount(code[code >= 0], minlength=len(known))
    enough = counts >= LEAST_SHARE * len(code)
    for half in (0, 1):
        chosen = (code >= 0) & (documents.index % 2 == half)
        pairs = np.unique(code[chosen] * documents.count + documents.index[chosen])
        enough &= np.bincount(pairs // max(documents.count, 1), minlength=len(known)) >= LEAST_DOCUMENTS
    kept = np.flatnonzero(enough)
    renamed = np.full(len(known) + 1, -1)
    renamed[kept] = np.arange(len(kept))
    return Family(name, renamed[code], tuple(known[index] for index in kept))
