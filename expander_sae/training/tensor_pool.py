"""A user's tensor as a pool to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.storage.arrays import as_tensor
from expander_sae.training.normalisation import CHUNK, float32_rows


class TensorPool:
    """A user's activations [N, m] as training reads them. Nothing is copied but what torch cannot read.

    Raises:
        UserError: not two axes, not floating point, no token, or a value that is not finite.
    """

    path = "activations"

    def __init__(self, activations: Tensor | np.ndarray) -> None:
        tensor = as_tensor(activations)
        if tensor.ndim != 2 or not tensor.is_floating_point():
            found = f"{list(tensor.shape)} of {tensor.dtype}"
            raise UserError(f"activations: found {found}, expected a floating-point tensor [N, m]")
        if not tensor.shape[0]:
            raise UserError("activations: found no token, expected one or more")
        self.activations = tensor.detach()
        self.tokens, self.m = tensor.shape
        norms = [np.linalg.norm(piece.astype(np.float64), axis=1) for piece in self._pieces()]
        self.norms = np.concatenate(norms)
        wrong = np.flatnonzero(~np.isfinite(self.norms))
        if wrong.size:
            raise UserError(f"activations: found a value that is not finite in row {wrong[0]}, expected none")

    def _pieces(self) -> Iterator[np.ndarray]:
        for start in range(0, self.tokens, CHUNK):
            yield float32_rows(self.activations, start, start + CHUNK)

    def digest(self) -> str:
        """sha256 of the values as float32: about a second for a gigabyte."""
        content = hashlib.sha256()
        for piece in self._pieces():
            content.update(np.ascontiguousarray(piece).data)
        return content.hexdigest()
