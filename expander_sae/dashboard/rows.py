"""Activations of a user's own file as the page takes them, in place of a pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from expander_sae.errors import UserError, readable
from expander_sae.storage.arrays import norms_of


class TokenRows:
    """What the page asks of a pool, of an array: activations float32 [N, m], and what is known of each.

    norms float64 [N]; document int [N]: contexts do not run from one into the next; token_id int [N] or None.
    Without ids nothing is known of a row's neighbours, and each row is a document of its own; with ids and
    without documents all rows are one.
    """

    def __init__(
        self,
        path: str | Path,
        activations: np.ndarray,
        token_id: np.ndarray | None = None,
        document: np.ndarray | None = None,
    ) -> None:
        self.path, self.activations, self.token_id = path, activations, token_id
        self.tokens, self.m = activations.shape
        self.norms = norms_of(activations)
        if document is None:
            document = np.arange(self.tokens) if token_id is None else np.zeros(self.tokens, np.int64)
        self.document: np.ndarray = document


def read_numbers(path: Path, rows: int, option: str) -> np.ndarray:
    """The first `rows` of a .npy of whole numbers ≥ 0, one a row of the activations ([B, T] is B·T rows).

    Raises:
        UserError: no such file, another kind of array, or fewer rows.
    """
    with readable(f"{option}: {path}", "a readable .npy of numbers", ValueError, EOFError):
        found: Any = np.load(path, allow_pickle=False)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
        kind = getattr(found, "dtype", type(found).__name__)
        raise UserError(f"{option}: {path}: found {kind}, expected a .npy of whole numbers")
    found = found.reshape(-1)
    if len(found) < rows:
        raise UserError(f"{option}: {path}: found {len(found)} numbers, expected one a row: {rows}")
    found = found[:rows].astype(np.int64)
    if rows and not 0 <= (low := int(found.min())) <= (high := int(found.max())) < 1 << 32:
        raise UserError(f"{option}: {path}: found {low} to {high}, expected 0 to 2³² − 1")
    return found
