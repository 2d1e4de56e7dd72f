"""Dense columns: every entry is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model.columns import Entries
from expander_sae.model.dictionary import DenseDictionary


def dense_recipe(m: int, n: int) -> MaskRecipe:
    """The support of n dense columns in R^m; it has no seed."""
    return MaskRecipe("dense", m, n, m, 0)


class Dense(Entries):
    """values [n, m]."""

    def __init__(
        self,
        support: Mask | MaskRecipe,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
        free: bool = False,
    ) -> None:
        super().__init__(support, backend, dtype, free)
        self._register(self.m)

    def _dictionary(self, entries: Tensor) -> DenseDictionary:
        return DenseDictionary(entries)

    def _restricted(self, residual: Tensor, drawn: Tensor, features: Tensor) -> Tensor:
        return residual[drawn]

    def record(self) -> None:
        return None

    @classmethod
    def recorded(cls, record: dict[str, Any] | None, tensors: dict[str, Tensor], origin: str | Path) -> None:
        check_size("values", tensors, origin)


def check_size(name: str, tensors: dict[str, Tensor], origin: str | Path) -> None:
    """Raise `UserError` where a tensor of a weights file has no m·n values."""
    m, n = tensors["b_dec"].numel(), tensors["b_enc"].numel()
    # Of packed values only the number of bytes is known yet: up to 7 more fit into the last one.
    most = m * n + (8 if tensors[name].is_meta else 1)
    if not m * n <= tensors[name].numel() < most:
        raise UserError(f"{origin}: {tensors[name].numel()} {name}, expected {m}·{n}; was it altered?")
