"""The decoder's columns, and the sparse codes that combine them.

`SparseDictionary`, `DenseDictionary`, and what is made of these, answer the same questions, so that encoders,
pursuits and metrics run on any without knowing which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from expander_sae.errors import UserError
from expander_sae.kernels import autograd, backends, dense
from expander_sae.machine.batch_sizes import samples_at_once
from expander_sae.storage.arrays import as_tensor


@dataclass(frozen=True)
class SparseCode:
    """At most k features a sample; k is that of the sample with the most where their number varies.

    Args:
        index: int64 [B, k]; −1 marks an empty place.
        value: [B, k]; 0 in an empty place.

    Examples:
        >>> code = SparseCode(torch.tensor([[3, 0], [3, -1]]), torch.tensor([[2.0, -0.5], [1.0, 0.0]]))
        >>> code.counts(n=4)  # feature 3 fires twice, feature 0 once
        tensor([1, 0, 0, 2])
    """

    index: Tensor
    value: Tensor

    def counts(self, n: int) -> Tensor:
        """int64 [n]: in how many samples each feature stands with a non-zero value."""
        return torch.bincount(self.index[self.value != 0], minlength=n)


def entries_of(dictionary: Dictionary) -> Tensor:
    """The entries [n, w] of all columns where these are sparse, padding 0; otherwise the columns [n, m]."""
    if isinstance(dictionary, SparseDictionary):
        return dictionary.values.detach()
    return dictionary.columns(torch.arange(dictionary.n, device=dictionary.device)).detach()


def joined(codes: Iterable[SparseCode]) -> SparseCode:
    """One code of all samples, as wide as the widest part."""
    parts = list(codes)
    width = max((part.index.shape[1] for part in parts), default=0)
    index, value = (
        torch.cat([functional.pad(part, (0, width - part.shape[1]), value=empty) for part in kind])
        for kind, empty in (([part.index for part in parts], -1), ([part.value for part in parts], 0))
    )
    return SparseCode(index, value)


def checked_code(code: SparseCode, n: int) -> tuple[Tensor, Tensor]:
    """(index, value) of a code of a user's as tensors.

    Raises:
        UserError: index and value of different shapes, or an index that is neither −1 nor one of n features.
    """
    index, value = as_tensor(code.index, "code.index"), as_tensor(code.value, "code.value")
    if index.ndim != 2 or index.shape != value.shape:
        shapes = f"index {list(index.shape)} and value {list(value.shape)}"
        raise UserError(f"code: found {shapes}, expected [B, k] of both")
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise UserError(f"code.index: found {index.dtype}, expected whole numbers")
    if index.numel():
        # Kernels look no index up: another one would read beyond the columns.
        low, high = (int(end) for end in torch.aminmax(index))
        if low < -1 or high >= n:
            expected = f"−1 (an empty place) to n − 1 = {n - 1}"
            raise UserError(f"code.index: found {low if low < -1 else high}, expected {expected}")
    return index, value


class Dictionary(Protocol):
    """Columns w_1 … w_n in R^m.

    `correlate_at` and `synthesize` are differentiable in the columns and in their argument;
    `correlate` and `correlate_topk` are not.
    """

    @property
    def m(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...

    def correlate(self, residual: Tensor) -> Tensor:
        """Wᵀr for each row of residual [B, m]: [B, n]."""

    def correlate_topk(self, residual: Tensor, bias: Tensor | None, k: int) -> SparseCode:
        """The k largest (signed) entries of Wᵀr + bias."""

    def correlate_at(
        self, residual: Tensor, index: Tensor, bias: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Entries of Wᵀr + bias at index [B, k]: [B, k]; 0 where index is −1.

        They are not computed where `known` holds them, as `correlate_topk` has just found them.
        """

    def synthesize(self, code: SparseCode) -> Tensor:
        """Wx: [B, m]."""

    def columns(self, index: Tensor) -> Tensor:
        """Columns written out: index [...] to [..., m]. For small index only."""

    def gram(self, index: Tensor) -> Tensor:
        """W_SᵀW_S for the columns of each row of index [B, k]: [B, k, k]."""

    def norms(self) -> Tensor:
        """Euclidean norm of each column: [n]."""

    def changed(self, change: Callable[[Tensor], Tensor]) -> Dictionary:
        """The dictionary of these columns after `change` of their stored entries, to any dtype."""

    def pieces(self, size: int) -> list[Dictionary]:
        """The columns in order, at most `size` in each dictionary; nothing is copied."""

    def reduced(self, target: Tensor) -> tuple[Dictionary, Tensor]:
        """(dictionary, target [B, r]) in fewer dimensions, where there are such with the same scores: its n
        columns have the products with each other and with each target [B, m] that these columns have."""


class Written(ABC):
    """What any kind can answer from its columns written out."""

    m: int

    @abstractmethod
    def columns(self, index: Tensor) -> Tensor: ...

    def gram(self, index: Tensor) -> Tensor:
        pieces = []
        numbers = max(1, index.shape[1] * self.m)
        # On a CPU a piece of about 64 MB of written-out columns at a time; elsewhere two copies of 8 bytes.
        for part in index.split(samples_at_once(index.device, 16 * numbers, max(1, 16_000_000 // numbers))):
            written = self.columns(part.clamp(min=0)) * (part >= 0).unsqueeze(-1)
            pieces.append(written @ written.transpose(1, 2))
        return torch.cat(pieces)

    # Every class that inherits from this one is a `Dictionary`; this one alone is not.
    def reduced(self, target: Tensor) -> tuple[Dictionary, Tensor]:
        return self, target  # type: ignore[return-value]

    def pieces(self, size: int) -> list[Dictionary]:
        return [self]  # type: ignore[list-item]


class _Stored(Written):
    """What sparse and dense ones answer alike, from their stored entries [n, w]."""

    rows: Tensor | None = None
    backend: ModuleType | None = None

    def __init__(self, entries: Tensor, m: int) -> None:
        self._entries, self.m = entries, m

    @property
    def entries(self) -> Tensor:
        return self._entries

    @entries.setter
    def entries(self, entries: Tensor) -> None:
        self._entries = entries

    @property
    def n(self) -> int:
        return self._entries.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._entries.dtype

    @property
    def device(self) -> torch.device:
        return self._entries.device

    def correlate_at(
        self, residual: Tensor, index: Tensor, bias: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        return autograd.correlate_at(self.backend, self._entries, self.rows, residual, index, bias, known)

    def synthesize(self, code: SparseCode) -> Tensor:
        return autograd.synthesize(self.backend, self._entries, self.rows, code.index, code.value, self.m)

    def norms(self) -> Tensor:
        return self._entries.detach().norm(dim=1)


class SparseDictionary(_Stored):
    """Columns with at most w nonzeros each.

    Args:
        values: [n, w]; padding of an irregular mask must be 0.
        rows: int32 [n, w].
        m: length of a column.
        backend: name of the kernels, see `expander_sae.kernels.backends.select`.
    """

    rows: Tensor
    backend: ModuleType
    values = _Stored.entries

    def __init__(self, values: Tensor, rows: Tensor, m: int, backend: str | ModuleType = "auto") -> None:
        super().__init__(values, m)
        self.rows, self._asked = rows, backend
        if isinstance(backend, str):
            backend = backends.select(backend, values.device, m, values.shape[1], values.dtype)
        self.backend = backend

    def correlate(self, residual: Tensor) -> Tensor:
        return self.backend.correlate(self.values.detach(), self.rows, residual)

    def correlate_topk(self, residual: Tensor, bias: Tensor | None, k: int) -> SparseCode:
        with torch.no_grad():
            values, rows = self.values.detach(), self.rows
            return SparseCode(*self.backend.correlate_topk(values, rows, residual.detach(), bias, k))

    def columns(self, index: Tensor) -> Tensor:
        values = self.values.detach()[index]
        written = torch.zeros(*index.shape, self.m, dtype=self.dtype, device=self.device)
        return written.scatter_add_(-1, self.rows[index].long(), values)

    def changed(self, change: Callable[[Tensor], Tensor]) -> SparseDictionary:
        return SparseDictionary(change(self.values), self.rows, self.m, self._asked)

    def pieces(self, size: int) -> list[Dictionary]:
        if self.n <= size:
            return [self]
        parts = zip(self.values.detach().split(size), self.rows.split(size), strict=True)
        return [SparseDictionary(values, rows, self.m, self.backend) for values, rows in parts]


class DenseDictionary(_Stored):
    """Columns without structure: weight [n, m], row j is column w_j."""

    weight = _Stored.entries

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight, weight.shape[1])

    def correlate(self, residual: Tensor) -> Tensor:
        return dense.correlate(self.weight.detach(), residual)

    def correlate_topk(self, residual: Tensor, bias: Tensor | None, k: int) -> SparseCode:
        with torch.no_grad():
            return SparseCode(*dense.correlate_topk(self.weight.detach(), residual.detach(), bias, k))

    def columns(self, index: Tensor) -> Tensor:
        return self.weight.detach()[index]

    def changed(self, change: Callable[[Tensor], Tensor]) -> DenseDictionary:
        return DenseDictionary(change(self.weight))

    def pieces(self, size: int) -> list[Dictionary]:
        if self.n <= size:
            return [self]
        return [DenseDictionary(weight) for weight in self.weight.detach().split(size)]


@torch.no_grad()
def centred_topk(
    dictionary: Dictionary, h: Tensor, offset: Tensor, bias: Tensor | None, k: int
) -> SparseCode:
    """The k largest entries of Wᵀ(h − offset) + bias; some backends subtract on the way."""
    if isinstance(dictionary, SparseDictionary) and hasattr(dictionary.backend, "centred_topk"):
        given = dictionary.values.detach(), dictionary.rows, h.detach(), offset.detach(), bias, k
        return SparseCode(*dictionary.backend.centred_topk(*given)[1:])
    return dictionary.correlate_topk(h - offset, bias, k)
