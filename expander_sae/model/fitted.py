"""Columns that nobody trains: a function sets them from the training tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model import stored_values
from expander_sae.model.columns import Columns


class Sample(Protocol):
    """What columns are fitted to: the kept training tokens h_1 … h_K, in the order of their documents.

    place: int64 [K], where they stand among all tokens. token_id, document: of all tokens, where known.
    """

    token_id: np.ndarray | None
    document: np.ndarray | None

    @property
    def place(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def centred(self, start: int, end: int) -> Tensor:
        """Tokens start to end less the mean of all, in the model's units: float64 [B, m] on the CPU."""


class Fitted(Columns):
    """`values` [stored, m] hold what a file stores of the columns, a vector a row."""

    def __init__(
        self,
        support: Mask | MaskRecipe,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
        free: bool = False,
    ) -> None:
        super().__init__(support, backend, dtype, free)
        self.values = nn.Parameter(torch.zeros(self.stored(self.recipe), self.m, dtype=self.dtype))
        self.freeze()

    @classmethod
    def stored(cls, recipe: MaskRecipe) -> int:
        """How many vectors a file stores."""
        return recipe.n

    @torch.no_grad()
    def fill(self, values: Tensor) -> None:
        """Take over vectors [stored, m] of any dtype and device."""
        self.values.copy_(values)

    def initialise(self, generator: torch.Generator) -> None:
        raise UserError(f"support {self.recipe.family}: found a random start, expected a fit to tokens")

    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        return torch.zeros_like(features, dtype=torch.bool)

    @classmethod
    def recorded(
        cls, record: dict[str, Any] | None, tensors: dict[str, Tensor], origin: str | Path
    ) -> MaskRecipe:
        support = super().recorded(record, tensors, origin)
        assert isinstance(support, MaskRecipe)
        try:
            stored_values.require_shape("values", tensors, (cls.stored(support), support.m))
        except UserError as error:
            raise UserError(f"{origin}: {error}") from None
        return support
