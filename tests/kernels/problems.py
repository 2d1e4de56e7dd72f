"""Small random dictionaries for the kernels' tests, with everything written out in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass
class Problem:
    values: Tensor
    rows: Tensor
    residual: Tensor
    bias: Tensor
    index: Tensor
    coefficient: Tensor
    k: int

    @property
    def m(self) -> int:
        return self.residual.shape[1]

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    def weight(self) -> Tensor:
        """Wᵀ [n, m]."""
        dense = torch.zeros(self.n, self.m, dtype=self.values.dtype)
        return dense.scatter_add_(1, self.rows.long(), self.values)

    def code(self, coefficient: Tensor) -> Tensor:
        """X [B, n]."""
        padded = torch.zeros(self.residual.shape[0], self.n + 1, dtype=coefficient.dtype)
        return padded.scatter_add_(1, self.index + 1, coefficient)[:, 1:]

    def to(self, dtype: torch.dtype) -> Problem:
        kinds = (t.to(dtype) for t in (self.values, self.residual, self.bias, self.coefficient))
        values, residual, bias, coefficient = kinds
        return Problem(values, self.rows, residual, bias, self.index, coefficient, self.k)


def problem(m: int, n: int, w: int, batch: int, k: int, seed: int, rounded: bool = False) -> Problem:
    """Columns of 1 to w entries (padding has value 0), a code with empty places; integers if `rounded`."""
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.permutation(m)[:w] for _ in range(n)]).astype(np.int32)
    lengths = generator.integers(1, w + 1, size=(n, 1))
    draw = generator.standard_normal
    values = draw((n, w)) * (np.arange(w) < lengths)
    arrays = [values, draw((batch, m)), draw(n), draw((batch, k))]
    if rounded:
        arrays = [np.round(a) for a in arrays]
    index = np.stack([generator.permutation(n)[:k] for _ in range(batch)])
    empty = generator.random((batch, k)) < 0.2
    index[empty] = -1
    arrays[3] = arrays[3] * ~empty
    values_t, residual, bias, coefficient = (torch.from_numpy(a) for a in arrays)
    return Problem(values_t, torch.from_numpy(rows), residual, bias, torch.from_numpy(index), coefficient, k)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """1 <= w <= m, 1 <= k <= n, any batch up to two tiles of 64; integer entries (ties) half of the time."""
    m = draw(st.integers(1, 40))
    n = draw(st.integers(1, 90))
    return problem(
        m,
        n,
        draw(st.integers(1, m)),
        draw(st.sampled_from([1, 2, 5, 63, 64, 65, 128])),
        draw(st.one_of(st.integers(1, n), st.just(n))),
        draw(st.integers(0, 10**6)),
        draw(st.booleans()),
    )
