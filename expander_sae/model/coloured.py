"""Random columns that have the covariance of the training tokens, in as many values as a sparse decoder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.masks.shapes import components
from expander_sae.model.dictionary import DenseDictionary
from expander_sae.model.fitted import Fitted, Sample
from expander_sae.model.principal import principal
from expander_sae.model.subspace_dictionary import SubspaceDictionary
from expander_sae.rng import Integers


class Coloured(Fitted):
    """W = colnorm(U(√λ ⊙ g)), g drawn from the seed; a file holds Uᵀ, `values` [r, m], and √λ, `spread` [r].

    λ and U are the r largest variances and the principal components of the tokens, so that U(√λ ⊙ g) has
    their covariance, as far as rank r reaches. r = min(m, ⌊d·n/m⌋): about as many values as n columns of d.

    The draws are sums of 64 fair bits, whole numbers and so the same on every machine, and nearly normal. A
    file holds their checksum.
    """

    draws: Tensor

    def __init__(self, *support: Any, **keywords: Any) -> None:
        super().__init__(*support, **keywords)
        self.spread = nn.Parameter(torch.zeros(len(self.values), dtype=self.dtype), requires_grad=False)
        self.register_buffer("draws", torch.from_numpy(drawn(self.recipe)), persistent=False)

    @classmethod
    def stored(cls, recipe: MaskRecipe) -> int:
        return components(recipe.m, recipe.n, recipe.d)

    def dictionary(self) -> DenseDictionary | SubspaceDictionary[DenseDictionary]:
        """In the r dimensions of the directions where these are fewer than m: n·r products, not n·m."""
        directions = unit_columns(self.values) * self.spread[:, None]
        draws, kind = self.draws.to(directions.dtype), directions.dtype
        # A basis in 16 bits is not orthonormal enough: products in it would not be those of the columns.
        if len(directions) == self.m or kind.itemsize <= 2:
            return DenseDictionary(unit_columns(draws @ directions))
        # Rounded directions are no longer orthogonal to each other.
        basis, factor = (part.T.to(kind) for part in torch.linalg.qr(directions.detach().double().T))
        return SubspaceDictionary(DenseDictionary(unit_columns(draws @ factor)), basis)

    def record(self) -> dict[str, Any]:
        return {**(super().record() or {}), "sha256": _checksum(self.draws.cpu().numpy())}

    @classmethod
    def recorded(
        cls, record: dict[str, Any] | None, tensors: dict[str, Tensor], origin: str | Path
    ) -> MaskRecipe:
        recipe = super().recorded(record, tensors, origin)
        found = _checksum(drawn(recipe))
        if record is None or record["sha256"] != found:
            expected = "columns of the recorded seed"
            raise UserError(f"{origin}: draws of sha256 {found}, expected {expected}; was the file altered?")
        return recipe


def fit(columns: Coloured, sample: Sample) -> None:
    """Set directions and spreads to those of the sample's principal components."""
    variance, directions = principal(sample, columns.m, len(columns.values))
    columns.fill(directions)
    columns.spread.copy_(variance.sqrt())


def drawn(recipe: MaskRecipe) -> np.ndarray:
    """int8 [n, r]: the draws of a recipe, of variance 16."""
    rank = Coloured.stored(recipe)
    if not 1 <= recipe.d <= recipe.m or rank < 1:
        raise UserError(f"d: found {recipe.d}, expected 1 to m = {recipe.m} and d·n of at least m")
    stream = Integers(recipe.seed, f"columns/{recipe.family}/{recipe.m}/{recipe.n}/{rank}")
    return stream.bell(recipe.n * rank).reshape(recipe.n, rank)


def _checksum(draws: np.ndarray) -> str:
    return hashlib.sha256(draws.tobytes()).hexdigest()
