"""Least squares on a growing set of columns, for a batch of samples at once.

With W_S the held columns and L the Cholesky factor of W_SᵀW_S, only L⁻¹ is kept. A new column w
costs g = W_Sᵀw, u = L⁻¹g, ℓ² = ‖w‖² - ‖u‖², and adds the row r = (-uᵀL⁻¹, 1)/ℓ to L⁻¹. The vectors
W_S rᵀ are orthonormal, so the least-squares coefficients grow by ⟨W_S rᵀ, target⟩·r: nothing is
solved, and no [B, m, k] tensor exists.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae.model.dictionary import Dictionary, SparseCode


def dependence_limit(dtype: torch.dtype) -> float:
    """ℓ²/‖w‖² under which a column counts as a combination of those held."""
    return 1e-12 if dtype == torch.float64 else 1e-6


class ActiveSet:
    """Held columns and their least-squares coefficients for each row of target [B, m].

    Samples may hold different numbers of columns, up to `capacity`; empty places have index -1. Overlaps are
    looked up in `gram`, WᵀW [n, n], if it is at hand. Nothing here waits for a device.
    """

    def __init__(
        self, dictionary: Dictionary, target: Tensor, capacity: int, gram: Tensor | None = None
    ) -> None:
        batch = target.shape[0]
        self.dictionary, self.target, self.gram = dictionary, target, gram
        self.index = torch.full((batch, capacity), -1, dtype=torch.int64, device=target.device)
        self.value = target.new_zeros(batch, capacity)
        self.held = torch.zeros(batch, dtype=torch.int64, device=target.device)
        self._appended = 0
        self._inverse = target.new_zeros(batch, capacity, capacity)
        self._correlation = target.new_zeros(batch, capacity)
        self._squared_norms = dictionary.norms().square()

    def code(self) -> SparseCode:
        """The coefficients so far."""
        return SparseCode(self.index, self.value)

    def residual(self) -> Tensor:
        """target - W_S x."""
        return self.target - self.dictionary.synthesize(self.code())

    def append(self, column: Tensor, wanted: Tensor) -> None:
        """Take up column [B] (int64) in the samples where `wanted` [B], unless it depends on those held."""
        # Every sample is computed; the others keep what they had. Rows past a sample's own count are zero.
        self._appended = size = min(self._appended + 1, self.index.shape[1])
        inverse = self._inverse[:, :size, :size]
        written = self.dictionary.columns(column)
        held = self.index[:, :size]
        if self.gram is None:
            overlap = self.dictionary.correlate_at(written, held)
        else:
            overlap = self.gram[column[:, None], held.clamp(min=0)].masked_fill_(held < 0, 0)
        u = torch.bmm(inverse, overlap[:, :, None])[:, :, 0]
        squared = self._squared_norms[column]
        pivot = squared - u.square().sum(1)
        taken = wanted & (pivot > dependence_limit(pivot.dtype) * squared) & (self.held < self.index.shape[1])
        place = self.held.clamp(max=size - 1)[:, None]

        row = -torch.bmm(u[:, None, :], inverse)[:, 0]
        row.scatter_(1, place, 1.0)
        row *= pivot.clamp(min=torch.finfo(pivot.dtype).tiny).rsqrt()[:, None]
        row.masked_fill_(~taken[:, None], 0)

        def put(tensor: Tensor, new: Tensor) -> None:
            kept = torch.where(taken[:, None], new[:, None], tensor.gather(1, place))
            tensor.scatter_(1, place, kept)

        put(self.index, column)
        put(self._correlation, (written * self.target).sum(1))
        at = place[:, :, None].expand(-1, 1, size)
        self._inverse.scatter_(1, at, torch.where(taken[:, None, None], row[:, None], inverse.gather(1, at)))
        step = (row * self._correlation[:, :size]).sum(1, keepdim=True)
        self.value[:, :size] += step * row
        self.held += taken
