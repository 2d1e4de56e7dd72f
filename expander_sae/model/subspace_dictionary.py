"""A dictionary whose columns lie in a subspace, and are known by their coordinates there."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Generic, TypeVar

import torch
from torch import Tensor

from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary, Written

Inner = TypeVar("Inner", SparseDictionary, DenseDictionary)


class SubspaceDictionary(Written, Generic[Inner]):
    """Columns U v_j of R^m, all computed with as the v_j of R^r that they are made from.

    Args:
        inner: the v_j.
        basis: Uᵀ [r, m], rows orthonormal.
    """

    def __init__(self, inner: Inner, basis: Tensor) -> None:
        self.inner: Inner = inner
        self.basis, self.m = basis, basis.shape[1]

    @property
    def n(self) -> int:
        return self.inner.n

    @property
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def backend(self) -> ModuleType | None:
        return self.inner.backend

    def correlate(self, residual: Tensor) -> Tensor:
        return self.inner.correlate(residual @ self.basis.T)

    def correlate_topk(self, residual: Tensor, bias: Tensor | None, k: int) -> SparseCode:
        return self.inner.correlate_topk(residual.detach() @ self.basis.T, bias, k)

    def correlate_at(
        self, residual: Tensor, index: Tensor, bias: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        return self.inner.correlate_at(residual @ self.basis.T, index, bias, known)

    def synthesize(self, code: SparseCode) -> Tensor:
        return self.inner.synthesize(code) @ self.basis

    def columns(self, index: Tensor) -> Tensor:
        return self.inner.columns(index) @ self.basis

    def gram(self, index: Tensor) -> Tensor:
        return self.inner.gram(index)

    def norms(self) -> Tensor:
        return self.inner.norms()

    def changed(self, change: Callable[[Tensor], Tensor]) -> SubspaceDictionary[Inner]:
        inner = self.inner.changed(change)
        return SubspaceDictionary(inner, self.basis.to(inner.dtype))

    def reduced(self, target: Tensor) -> tuple[Dictionary, Tensor]:
        """In R^r: what is outside of the span of U is the same in every residual."""
        return self.inner, target @ self.basis.T
