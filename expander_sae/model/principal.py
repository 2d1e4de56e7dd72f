"""Principal components: the columns that nobody trains and that rebuild best when all of them are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.kernels.autograd import unit_columns
from expander_sae.machine.piece_sizes import FITTED_TOKENS
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.dictionary import DenseDictionary
from expander_sae.model.fitted import Fitted, Sample


class Principal(Fitted):
    """The n/2 components of largest variance, a row of `values` [n/2, m] each, and their opposites.

    With both signs the k largest scores are those of the k projections of largest size, each with its sign:
    an autoencoder's top-k of signed scores is then the best code of k components, and so is a pursuit's.
    Column i + n/2 is the opposite of column i and is not stored.
    """

    def __init__(self, *support: Any, **keywords: Any) -> None:
        recipe: MaskRecipe = support[0].recipe
        if recipe.n % 2 or recipe.n > 2 * recipe.m:
            expected = f"an even number up to 2m = {2 * recipe.m}: each component with both signs"
            raise UserError(f"n: found {recipe.n} for principal components, expected {expected}")
        super().__init__(*support, **keywords)

    @classmethod
    def stored(cls, recipe: MaskRecipe) -> int:
        return recipe.n // 2

    @property
    def most_active(self) -> int:
        """All components, each with one sign."""
        return self.n // 2

    def dictionary(self) -> DenseDictionary:
        columns = unit_columns(self.values)
        return DenseDictionary(torch.cat([columns, -columns]))


def fit(columns: Principal, sample: Sample) -> None:
    """Set the columns to the principal components of the sample."""
    columns.fill(principal(sample, columns.m, len(columns.values))[1])


def principal(sample: Sample, m: int, count: int) -> tuple[Tensor, Tensor]:
    """(variance [count], direction [count, m]) of the first principal components, by falling variance.

    In float64, from the covariance of all tokens. The largest entry of a direction is positive, since either
    sign is an eigenvector. Tokens fewer than `count` leave directions without variance, which are arbitrary.

    Raises:
        UserError: all tokens are alike.
    """
    covariance = torch.zeros(m, m, dtype=torch.float64)
    for start in range(0, len(sample), FITTED_TOKENS):
        piece = sample.centred(start, min(start + FITTED_TOKENS, len(sample)))
        covariance.addmm_(piece.T, piece)
    variance, vectors = torch.linalg.eigh(covariance / len(sample))
    variance, directions = variance.flip(0)[:count].clamp(min=0), vectors.T.flip(0)[:count]
    if not variance[0] > 0:
        raise UserError("activations: found tokens that are all alike, expected some variance")
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return variance, directions * largest.sign()
