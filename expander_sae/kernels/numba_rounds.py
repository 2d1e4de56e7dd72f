"""What a pursuit's round does with the columns that it chose, compiled by numba.

With L the Cholesky factor of W_SᵀW_S, a column w costs u = L⁻¹W_Sᵀw, which is a row of L, and ℓ² = 1 − ‖u‖².
The residual of a refit is orthogonal to W_S. So what a round adds to the coefficients is L⁻ᵀ(0, y), where y
solves the new rows of L against the new columns' scores. A sample's round of c columns on s held ones is
O(c·s·(s + w)), w being the entries of a column; of two columns the shorter one counts.
"""

# ruff: noqa: ANN001, ANN201
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit


# One function, and no calls: see `numba_omp.py`. Overlaps are in a loop of their own. With what follows in
# the same loop, LLVM makes vectors of neither, and a round takes two to three times as long.
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def take_up(
    core, values, rows, chosen, score, limit, dependence, index, value, residual, factor, held, going,
    start, stop,
):  # fmt: skip
    """Samples [start, stop): take up `chosen` [B, c], best first, where `score` exceeds `limit` [B]; refit.

    Unit (or zero) columns, dense ones before sparse ones: core [c, m], values and rows [n − c, w]. index,
    value [B, k]: the code so far. residual [B, m]: of that code. factor [B, k, k]: L, with 1/ℓ on its
    diagonal. held [B]: how many columns. going [B]: false where a sample has stopped; nothing of it is read
    or written. A column that depends on those held is passed over.
    """
    dense, width, k, m = core.shape[0], rows.shape[1], index.shape[1], residual.shape[1]
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
            row, own = lower[size], j - dense
            slope, pivot = values.dtype.type(0), values.dtype.type(1)
            if own < 0:
                for r in range(m):
                    written[r] = core[j, r]
                    slope += core[j, r] * left[r]
            else:
                for t in range(width):
                    written[rows[own, t]] += values[own, t]
                    slope += values[own, t] * left[rows[own, t]]
            for i in range(size):
                column = names[i]
                total = values.dtype.type(0)
                if column >= dense:
                    column -= dense
                    for t in range(width):
                        total += values[column, t] * written[rows[column, t]]
                elif own >= 0:
                    for t in range(width):
                        total += values[own, t] * core[column, rows[own, t]]
                else:
                    for r in range(m):
                        total += core[column, r] * written[r]
                row[i] = total
            for i in range(size):
                old, total = lower[i], row[i]
                known = values.dtype.type(0)
                for c in range(i):
                    known += old[c] * row[c]
                total = (total - known) * old[i]
                row[i] = total
                pivot -= total * total
            for i in range(first, size):
                slope -= row[i] * step[i]
            if own < 0:
                written[:] = 0
            else:
                for t in range(width):
                    written[rows[own, t]] = 0
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
            if column < dense:
                for r in range(m):
                    left[r] -= x * core[column, r]
            else:
                for t in range(width):
                    left[rows[column - dense, t]] -= x * values[column - dense, t]
