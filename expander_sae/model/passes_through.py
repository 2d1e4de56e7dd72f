"""Which activations an autoencoder encodes, and which it passes through unchanged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.storage.arrays import as_tensor, norms_of


class PassesThrough(nn.Module):
    """An autoencoder of width m whose `about` may have a `norm_limit`."""

    m: int
    about: dict[str, Any]

    def _check_rows(self, activations: Tensor | np.ndarray) -> None:
        """[B, m]; without this [B, 1] would be broadcast."""
        if activations.ndim != 2 or activations.shape[1] != self.m:
            raise UserError(f"activations: found shape {list(activations.shape)}, expected [B, m = {self.m}]")

    @property
    def norm_limit(self) -> float:
        """`about["norm_limit"]`; infinite where there is none."""
        limit = self.about.get("norm_limit")
        return math.inf if limit is None else float(limit)

    def encoded(self, activations: Tensor | np.ndarray, norms: np.ndarray | None = None) -> Tensor:
        """bool [N] on the CPU: which tokens are of a norm of at most `norm_limit`, compared in float64.

        The others are passed through unchanged. A mapped file of `activations` [N, m] is read a few thousand
        rows at a time, and not at all where their `norms`, float64 [N], are given.

        Raises:
            UserError: another shape.
        """
        rows = activations if isinstance(activations, np.ndarray) else as_tensor(activations)
        self._check_rows(rows)
        if self.norm_limit == math.inf:
            return torch.ones(len(rows), dtype=torch.bool)
        return torch.from_numpy((norms_of(rows) if norms is None else norms) <= self.norm_limit)
