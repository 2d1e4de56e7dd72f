"""Columns that are sparse in the principal components of the training tokens."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.kernels import backends
from expander_sae.kernels.tensor_cache import PerTensor
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.supports import support_of
from expander_sae.masks.weighted import weighted_mask, whole
from expander_sae.model import rounding, stored_values
from expander_sae.model.columns import Entries
from expander_sae.model.dictionary import Dictionary, SparseDictionary
from expander_sae.model.fitted import Sample
from expander_sae.model.precisions import PRECISIONS, Precision
from expander_sae.model.principal import principal
from expander_sae.model.sparse import Places
from expander_sae.model.subspace_dictionary import SubspaceDictionary

_LEAST_VARIANCE = 1e-3
"""Of the rows of a basis along any direction of their span, were they orthonormal it is 1."""

_orthonormal = PerTensor()


class Spectral(Entries):
    """w_j = U v_j with ‖v_j‖ = 1: `values` [n, d] in d of r principal components U, `basis` Uᵀ [r, m].

    The components of column j are drawn without replacement, with probabilities proportional to the square
    roots of their variances as whole `weights`, which a file holds. Both are set from the training tokens and
    then left. The tied encoder has a learned gain `gamma` [r] of each component:

        z = Vᵀ(γ ∘ Uᵀ(h − b_dec)) + b_enc

    Before it is fitted, U are the first r coordinates, all of one weight.
    """

    weights: Tensor
    places: Places

    def __init__(self, *support: Any, **keywords: Any) -> None:
        super().__init__(*support, **keywords)
        self.rank = _rank(self.recipe)
        self._register(self.d)
        self.basis = nn.Parameter(torch.eye(self.rank, self.m, dtype=self.dtype), requires_grad=False)
        self.gamma = nn.Parameter(torch.ones(self.rank, dtype=self.dtype))
        self._draw(torch.ones(self.rank, dtype=torch.int64))

    def _draw(self, weights: Tensor) -> None:
        """Take over weights [r], and draw the components of each column."""
        self.register_buffer("weights", weights.to(torch.int64).cpu(), persistent=False)
        self._drawn = weighted_mask(self.recipe, self.weights.numpy())
        self.places = Places(self._drawn).to(self.values.device)

    def fill(self, variance: Tensor, directions: Tensor) -> None:
        """Take over r principal components [r, m] of these variances [r]."""
        with torch.no_grad():
            self.basis.copy_(directions)
        self._draw(torch.from_numpy(whole(variance.sqrt().cpu().numpy())))

    @property
    def rows(self) -> Tensor:
        """int32 [n, d]: the component of each value."""
        return self.places.rows

    @property
    def single(self) -> Tensor | None:
        return self.places.single

    @property
    def words(self) -> str:
        return f"columns of {self.d} nonzeros in {self.rank} principal components"

    def column_sizes(self) -> dict[str, int]:
        return {"values": self.d}

    def kernels(self) -> ModuleType:
        return backends.select(self.backend, self.values.device, self.rank, self.d, self.dtype)

    def directions(self) -> Tensor:
        """Uᵀ [r, m]: the orthonormal rows nearest to those of `basis` at unit norm."""
        used = self.held_in("basis") if self.rounds else None
        key = self.basis.dtype, str(self.basis.device), used
        return _orthonormal.get(self.basis, key, lambda: _nearest(self.basis.detach(), used))

    def _dictionary(self, entries: Tensor) -> SubspaceDictionary[SparseDictionary]:
        inner = SparseDictionary(entries, self.rows, self.rank, self.backend)
        return SubspaceDictionary(inner, self.directions())

    def tied_encoder(self, decoder: Dictionary) -> SubspaceDictionary[SparseDictionary]:
        assert isinstance(decoder, SubspaceDictionary) and isinstance(decoder.inner, SparseDictionary)
        gained = decoder.inner.values * self.gamma[self.rows.long()]
        return SubspaceDictionary(SparseDictionary(gained, self.rows, self.rank, self.backend), decoder.basis)

    def _restricted(self, residual: Tensor, drawn: Tensor, features: Tensor) -> Tensor:
        return (residual[drawn] @ self.directions().T).gather(1, self.rows[features].long())

    def tied(self, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int) -> None:  # type: ignore[override]
        return None

    def tied_step(self, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int) -> None:  # type: ignore[override]
        return None

    def held_in(self, name: str) -> Precision:
        """That of the columns, and of the basis no fewer than 8 bits."""
        coarse = name == "basis" and self.precision.bits < 8
        return PRECISIONS["int8"] if coarse else self.precision

    @property
    def shared_bytes(self) -> int:
        """Those of the basis, which any autoencoder of the layer can have."""
        return self._bytes_of("basis", self.basis)

    def state(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def resume(self, state: dict[str, Tensor]) -> None:
        self._draw(state["weights"])

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | {"weights": self.weights.to(torch.uint16)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        super().restore(tensors)
        self.directions()  # which refuses a basis that is none
        self._draw(tensors["weights"])

    def record(self) -> dict[str, Any]:
        return {**(super().record() or {}), "sha256": self._drawn.sha256}

    @property
    def record_bytes(self) -> int:
        return super().record_bytes + self.weights.to(torch.uint16).nbytes

    @classmethod
    def recorded(
        cls, record: dict[str, Any] | None, tensors: dict[str, Tensor], origin: str | Path
    ) -> Mask | MaskRecipe | None:
        recipe = super().recorded(record, tensors, origin)
        assert isinstance(recipe, MaskRecipe) and record is not None
        try:
            rank = _rank(recipe)
            shapes = {"values": (recipe.n, recipe.d), "basis": (rank, recipe.m)}
            for name, shape in (shapes | {"gamma": (rank,), "weights": (rank,)}).items():
                stored_values.require_shape(name, tensors, shape)
            found = weighted_mask(recipe, tensors["weights"].to(torch.int64).numpy()).sha256
        except UserError as error:
            raise UserError(f"{origin}: {error}") from None
        if found != record["sha256"]:
            known = f"components of sha256 {record['sha256']}, drawn again {found}"
            raise UserError(f"{origin}: {known}; was the file altered?")
        return recipe


def _rank(recipe: MaskRecipe) -> int:
    """How many principal components there are."""
    known = support_of(recipe.family)
    assert known.number is not None
    known.check(recipe.m, recipe.n, recipe.d)
    return known.number


def _nearest(basis: Tensor, rounded: Precision | None) -> Tensor:
    """B(BᵀB)^(−1/2), of unit rows B that are first rounded where a precision is given; in float64.

    Raises:
        ValueError: rows that depend on each other.
    """
    rows = basis.double()
    if rounded is not None:
        levels = rounded.levels > 0
        rows = (
            rounding.closest(rows, None, rounded, rounding.SOME)[0] if levels else basis.bfloat16().double()
        )
    rows = torch.nn.functional.normalize(rows, dim=1)
    variance, vectors = torch.linalg.eigh(rows @ rows.T)
    if not bool(variance[0] > _LEAST_VARIANCE):
        raise ValueError("rows of the basis depend on each other, expected nearly orthonormal ones")
    return (vectors * variance.rsqrt() @ vectors.T @ rows).to(basis.dtype)


def fit(columns: Spectral, sample: Sample) -> None:
    """Set basis and components to those of the sample."""
    columns.fill(*principal(sample, columns.m, columns.rank))
