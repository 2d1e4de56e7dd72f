"""A user's tensor as a pool to train on."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.storage.arrays import as_tensor

_CHUNK = 8192


class _Rows:
    """A tensor whose slices are float32 arrays, so that bfloat16 and CUDA tensors are read in pieces."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._tensor[rows].detach().float().cpu().numpy()


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
        self.tensor = tensor.detach()
        self.tokens, self.m = tensor.shape
        self.activations = _Rows(self.tensor)
        pieces = [
            np.linalg.norm(self.activations[slice(start, start + _CHUNK)].astype(np.float64), axis=1)
            for start in range(0, self.tokens, _CHUNK)
        ]
        self.norms = np.concatenate(pieces)
        wrong = np.flatnonzero(~np.isfinite(self.norms))
        if wrong.size:
            raise UserError(f"activations: found a value that is not finite in row {wrong[0]}, expected none")

    def check_tokens(self, tokens: int) -> None:
        if not 0 < tokens <= self.tokens:
            raise UserError(f"activations: found {self.tokens} tokens, expected {tokens}")

    def digest(self) -> str:
        """sha256 of the values as float32: about a second for a gigabyte."""
        content = hashlib.sha256()
        for start in range(0, self.tokens, _CHUNK):
            content.update(np.ascontiguousarray(self.activations[slice(start, start + _CHUNK)]).data)
        return content.hexdigest()
