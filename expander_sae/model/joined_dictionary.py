"""A dictionary of several dictionaries' columns, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from types import ModuleType

import torch
from torch import Tensor

from expander_sae.kernels.exact_topk import topk_of_columns
from expander_sae.model.dictionary import Dictionary, SparseCode, Written


class JoinedDictionary(Written):
    """The columns of each part, in the order of the parts, each computed with as its own kind is.

    Args:
        parts: dictionaries of one m, dtype and device.
    """

    def __init__(self, *parts: Dictionary) -> None:
        self.parts, self.m = parts, parts[0].m

    @property
    def n(self) -> int:
        return sum(part.n for part in self.parts)

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    @property
    def backend(self) -> ModuleType | None:
        """That of the sparse columns."""
        return next(filter(None, (getattr(part, "backend", None) for part in self.parts)), None)

    def _split(self) -> Iterator[tuple[Dictionary, int, int]]:
        """Each part, its first column's number, and that of the first one behind it."""
        start = 0
        for part in self.parts:
            yield part, start, start + part.n
            start += part.n

    def _held(self, index: Tensor) -> Iterator[tuple[Dictionary, slice, Tensor]]:
        """Each part, which columns it has, and its own numbers of those in `index`; −1 for all others."""
        for part, start, end in self._split():
            inside = (index >= start) & (index < end)
            yield part, slice(start, end), torch.where(inside, index - start, -1)

    def correlate(self, residual: Tensor) -> Tensor:
        return torch.cat([part.correlate(residual) for part in self.parts], dim=1)

    def correlate_topk(self, residual: Tensor, bias: Tensor | None, k: int) -> SparseCode:
        found = [
            (start, part.correlate_topk(residual, None if bias is None else bias[start:end], min(k, part.n)))
            for part, start, end in self._split()
        ]
        # Ascending, so that of equal scores the lowest index is kept.
        index, order = torch.cat([start + best.index for start, best in found], dim=1).sort(dim=1)
        value = torch.cat([best.value for _, best in found], dim=1).gather(1, order)
        place, value = topk_of_columns(value.t(), k)
        return SparseCode(index.gather(1, place), value)

    def correlate_at(
        self, residual: Tensor, index: Tensor, bias: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        found = []
        for part, columns, own in self._held(index):
            told = None if known is None else known.masked_fill(own < 0, 0)
            found.append(part.correlate_at(residual, own, None if bias is None else bias[columns], told))
        return reduce(torch.add, found)

    def synthesize(self, code: SparseCode) -> Tensor:
        parts = [part.synthesize(SparseCode(own, code.value)) for part, _, own in self._held(code.index)]
        return reduce(torch.add, parts)

    def columns(self, index: Tensor) -> Tensor:
        written = [
            part.columns(own.clamp(min=0)) * (own >= 0).unsqueeze(-1) for part, _, own in self._held(index)
        ]
        return reduce(torch.add, written)

    def norms(self) -> Tensor:
        return torch.cat([part.norms() for part in self.parts])

    def changed(self, change: Callable[[Tensor], Tensor]) -> JoinedDictionary:
        return JoinedDictionary(*(part.changed(change) for part in self.parts))
