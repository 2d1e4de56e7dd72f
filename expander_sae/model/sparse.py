"""Sparse columns: entries on the rows of a mask."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.kernels import backends
from expander_sae.masks.learned import packed, unpacked
from expander_sae.masks.recipe import Mask, MaskRecipe, describe
from expander_sae.masks.stored import kept_or_made
from expander_sae.masks.supports import learned
from expander_sae.model.columns import Columns, Entries
from expander_sae.model.dense import Dense, dense_recipe
from expander_sae.model.dictionary import SparseDictionary
from expander_sae.model.precisions import FLOAT32


def single_columns(mask: Mask) -> Tensor | None:
    """bool [n, 1]: which columns have one entry; None where none has."""
    single = torch.from_numpy(mask.degrees == 1).unsqueeze(1)
    return single if bool(single.any()) else None


class Places(nn.Module):
    """The rows of a mask on a device; a decoder and an encoder on one mask share them."""

    rows: Tensor
    valid: Tensor | None
    single: Tensor | None

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(mask.rows), persistent=False)
        valid = None if mask.regular else torch.from_numpy(mask.valid())
        self.register_buffer("valid", valid, persistent=False)
        self.register_buffer("single", single_columns(mask), persistent=False)


class Sparse(Entries):
    """values [n, w] on a mask, which is generated where a recipe is given."""

    mask: Mask

    def __init__(
        self,
        support: Mask | MaskRecipe,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
        free: bool = False,
    ) -> None:
        super().__init__(support if isinstance(support, Mask) else support.generate(), backend, dtype, free)
        self._register(self.mask.width)
        self.places = Places(self.mask)

    @property
    def rows(self) -> Tensor:
        return self.places.rows

    @property
    def valid(self) -> Tensor | None:
        return self.places.valid

    @property
    def single(self) -> Tensor | None:
        return self.places.single

    def encoder(self, name: str) -> Columns | None:
        if name == "full":
            return Dense(dense_recipe(self.m, self.n), self.backend, self.dtype, free=True)
        if name == "own_support":
            kind = self.apart or type(self)
            own = self.encoder_mask or self.recipe.generate("encoder_mask")
            return kind(own, self.backend, self.dtype, free=True)
        made = super().encoder(name)
        if isinstance(made, Sparse):
            made.places = self.places
        return made

    def kernels(self) -> ModuleType:
        values = self.values
        return backends.select(self.backend, values.device, self.m, values.shape[1], values.dtype)

    def _dictionary(self, entries: Tensor) -> SparseDictionary:
        return SparseDictionary(entries, self.rows, self.m, self.backend)

    def _restricted(self, residual: Tensor, drawn: Tensor, features: Tensor) -> Tensor:
        direction = residual[drawn.unsqueeze(1), self.rows[features].long()]
        return direction if self.valid is None else direction * self.valid[features]

    def tensors(self) -> dict[str, Tensor]:
        """True entries only, and the rows where no recipe gives them."""
        if not self.mask.learned or self.free:
            return super().tensors()
        return super().tensors() | {"rows": packed(self.mask, dense=self.precision.name != FLOAT32)}

    def record(self) -> dict[str, Any]:
        return describe(self.mask)

    @classmethod
    def recorded(cls, record: dict[str, Any] | None, tensors: dict[str, Tensor], origin: str | Path) -> Mask:
        assert record is not None
        if learned(record["recipe"]["family"]):
            return unpacked(record, tensors["rows"], origin)
        size = tensors["b_dec"].numel(), tensors["b_enc"].numel(), tensors["values"].numel()
        return kept_or_made(record["recipe"], record["sha256"], origin, size)

    @property
    def count(self) -> int:
        return self.mask.edges
