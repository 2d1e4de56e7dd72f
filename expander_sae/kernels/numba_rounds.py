"""What a pursuit's round does with the columns that it chose, compiled by numba, on a sparse dictionary.

With L the Cholesky factor of W_SᵀW_S, a column w costs u = L⁻¹W_Sᵀw, which is a row of L, and ℓ² = 1 − ‖u‖².
The residual of a refit is orthogonal to W_S. So what a round adds to the coefficients is L⁻ᵀ(0, y), where y
solves the new rows of L against the new columns' scores. A sample's round of c columns on s held ones is
O(c·s·(s + w)).
"""

# ruff: noqa: ANN001, ANN201
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit


# One function, and no calls: see `numba_omp.py`.
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def take_up(
    values, rows, chosen, score, limit, dependence, index, value, residual, factor, held, going, start, stop
):
    """Samples [start, stop): take up `chosen` [B, c], best first, where `score` exceeds `limit` [B]; refit.

    values: unit (or zero) columns. index, value [B, k]: the code so far. residual [B, m]: of that code.
    factor [B, k, k]: L, with 1/ℓ on its diagonal. held [B]: how many columns. going [B]: false where a sample
    has stopped; nothing of it is read or written. A column that depends on those held is passed over.
    """
    width, k, m = rows.shape[1], index.shape[1], residual.shape[1]
    written, step = np.zeros(m, values.dtype), np.empty(k, values.dtype)
    for b in range(start, stop):
        if not going[b]:
            continue
        names, lower, left = index[b], factor[b], residual[b]
        first = size = held[b]
        for place in range(chosen.shape[1]):
            if size == k or not score[b, place] > limit[b]:
                break
            j = chosen[b, place]
            row = lower[size]
            slope, pivot = values.dtype.type(0), values.dtype.type(1)
            for t in range(width):
                written[rows[j, t]] += values[j, t]
                slope += values[j, t] * left[rows[j, t]]
            for i in range(size):
                column, old = names[i], lower[i]
                total = values.dtype.type(0)
                for t in range(width):
                    total += values[column, t] * written[rows[column, t]]
                for c in range(i):
                    total -= old[c] * row[c]
                total *= old[i]
                row[i] = total
                pivot -= total * total
            for i in range(first, size):
                slope -= row[i] * step[i]
            for t in range(width):
                written[rows[j, t]] = 0
            if pivot > dependence:
                row[size] = 1 / np.sqrt(pivot)
                step[size] = slope * row[size]
                names[size] = j
                size += 1
        going[b] = score[b, 0] > limit[b] and size < k
        held[b] = size
        step[:first] = 0
        for i in range(size - 1 if size > first else -1, -1, -1):
            old, column = lower[i], names[i]
            x = step[i] * old[i]
            for c in range(i):
                step[c] -= old[c] * x
            value[b, i] += x
            for t in range(width):
                left[rows[column, t]] -= x * values[column, t]
