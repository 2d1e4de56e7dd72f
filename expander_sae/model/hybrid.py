"""Dense columns beside sparse ones: what all tokens share is written once, and features stay cheap."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.masks.shapes import hybrid_parts
from expander_sae.masks.supports import support_of
from expander_sae.model import rounding, stored_values
from expander_sae.model.columns import Columns, Entries
from expander_sae.model.dense import Dense, dense_recipe
from expander_sae.model.dictionary import Dictionary
from expander_sae.model.joined_dictionary import JoinedDictionary
from expander_sae.model.sparse import Sparse


class Hybrid(Columns):
    """W = [colnorm(C) | colnorm(M ∘ V)] of `core` C [c, m] and `values` V [n − c, d_s], a column a row.

    M is an expander's mask. c and d_s follow from the recipe, see `hybrid_parts`: in all there are as many
    values as n columns of d have.
    """

    _parts: tuple[Dense, Sparse]

    def __init__(self, *support: Any, **keywords: Any) -> None:
        super().__init__(*support, **keywords)
        core, tail = _recipes(self.recipe)
        # In a tuple, so that torch takes neither for a submodule: their parameters have names here.
        self._parts = Dense(core, self.backend, self.dtype), Sparse(tail, self.backend, self.dtype)
        self.core, self.values = (part.values for part in self._parts)

    def _apply(self, fn: Any, recurse: bool = True) -> Hybrid:
        for part in self._parts:
            part._apply(fn)
        return super()._apply(fn, recurse)

    @property
    def words(self) -> str:
        core, tail = (part.recipe for part in self._parts)
        return f"{core.n:,} dense columns and {tail.n:,} of {tail.d} nonzeros on a fixed random mask"

    def column_sizes(self) -> dict[str, int]:
        return {"core": self.m, "values": self._parts[1].d}

    def initialise(self, generator: torch.Generator) -> None:
        for part in self._parts:
            part.initialise(generator)

    def dictionary(self) -> JoinedDictionary:
        return JoinedDictionary(*map(self._part, self._parts))

    def _part(self, part: Entries) -> Dictionary:
        return part._dictionary(unit_columns(self._used(part), part.single))

    def _used(self, part: Entries) -> Tensor:
        entries = part.values
        return rounding.straight_through(entries, None, self.precision) if self.rounds else entries

    def kernels(self) -> ModuleType:
        return self._parts[1].kernels()

    @torch.no_grad()
    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        usable, start = torch.zeros_like(features, dtype=torch.bool), 0
        for part in self._parts:
            own = ((features >= start) & (features < start + part.n)).nonzero()[:, 0]
            usable[own] = part.aim(features[own] - start, residual, drawn[own])
            start += part.n
        return usable

    def record(self) -> dict[str, Any]:
        return {**(super().record() or {}), "sha256": self._parts[1].mask.sha256}

    @classmethod
    def recorded(
        cls, record: dict[str, Any] | None, tensors: dict[str, Tensor], origin: str | Path
    ) -> MaskRecipe:
        recipe = super().recorded(record, tensors, origin)
        assert isinstance(recipe, MaskRecipe) and record is not None
        try:
            core, tail = _recipes(recipe)
            stored_values.require_shape("core", tensors, (core.n, core.m))
            stored_values.require_shape("values", tensors, (tail.n, tail.d))
        except UserError as error:
            raise UserError(f"{origin}: {error}") from None
        if (found := tail.generate().sha256) != record["sha256"]:
            known = f"mask sha256 {record['sha256']}, regenerated {found}"
            raise UserError(f"{origin}: {known}; was the file altered?")
        return recipe


def _recipes(recipe: MaskRecipe) -> tuple[MaskRecipe, MaskRecipe]:
    """Of the dense columns and of the others."""
    number = support_of(recipe.family).number
    assert number is not None
    core, inner = hybrid_parts(recipe.m, recipe.n, recipe.d, number)
    tail = MaskRecipe("expander", recipe.m, recipe.n - core, inner, recipe.seed)
    return dense_recipe(recipe.m, core), tail
