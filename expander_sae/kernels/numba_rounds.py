"""What a pursuit's round does with the columns that it chose, compiled by numba.

With L the Cholesky factor of W_SᵀW_S, a column w costs u = L⁻¹W_Sᵀw, which is a row of L, and ℓ² = 1 − ‖u‖².
The residual of a refit is orthogonal to W_S. So what a round adds to the coefficients is L⁻ᵀ(0, y), where y
solves the new rows of L against the new columns' scores. A sample's round of c columns on s held ones is
O(c·s·(s + w)), w being the entries of a column; of two columns the shorter one counts.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit

_SUMS = {"contract", "reassoc", "nsz"}
_compiled = njit(cache=True, nogil=True, fastmath=_SUMS)
# Inlined, so that a process that compiles and one that loads from the cache round alike: see `numba_omp.py`.
_inlined = njit(cache=True, nogil=True, fastmath=_SUMS, forceinline=True)


@_inlined
def _write(core, values, rows, j, residual, written):
    """written, zeros [m], becomes column j; its score is returned."""
    own, score = j - core.shape[0], values.dtype.type(0)
    if own < 0:
        for r in range(written.size):
            written[r] = core[j, r]
            score += core[j, r] * residual[r]
    else:
        for t in range(rows.shape[1]):
            written[rows[own, t]] += values[own, t]
            score += values[own, t] * residual[rows[own, t]]
    return score


@_inlined
def _erase(core, rows, j, written):
    """written becomes zeros again."""
    own = j - core.shape[0]
    if own < 0:
        written[:] = 0
    else:
        for t in range(rows.shape[1]):
            written[rows[own, t]] = 0


@_inlined
def _overlaps(core, values, rows, j, names, held, written, row):
    """row[i] = ⟨column j, column names[i]⟩ for i < held; `written` [m] is column j."""
    dense, width = core.shape[0], rows.shape[1]
    own = j - dense
    for i in range(held):
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
            for r in range(written.size):
                total += core[column, r] * written[r]
        row[i] = total


@_inlined
def _solve(factor, held, row):
    """row becomes L⁻¹row; ℓ² is returned. In one loop with the overlaps LLVM makes vectors of neither."""
    pivot = row.dtype.type(1)
    for i in range(held):
        old, total = factor[i], row[i]
        known = row.dtype.type(0)
        for c in range(i):
            known += old[c] * row[c]
        total = (total - known) * old[i]
        row[i] = total
        pivot -= total * total
    return pivot


@_inlined
def _refit(core, values, rows, names, factor, held, step, value, residual):
    """value += L⁻ᵀstep, which is overwritten, and the residual follows."""
    dense = core.shape[0]
    for i in range(held - 1, -1, -1):
        old, column = factor[i], names[i]
        x = step[i] * old[i]
        for c in range(i):
            step[c] -= old[c] * x
        value[i] += x
        if column < dense:
            for r in range(residual.size):
                residual[r] -= x * core[column, r]
        else:
            for t in range(rows.shape[1]):
                residual[rows[column - dense, t]] -= x * values[column - dense, t]


@_compiled
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
    k, m = index.shape[1], residual.shape[1]
    written, step = np.zeros(m, values.dtype), np.empty(k, values.dtype)
    for b in range(start, stop):
        if not going[b]:
            continue
        first = size = held[b]
        for place in range(chosen.shape[1]):
            if size == k or not score[b, place] > limit[b]:
                break
            j, row = chosen[b, place], factor[b, size]
            slope = _write(core, values, rows, j, residual[b], written)
            _overlaps(core, values, rows, j, index[b], size, written, row)
            _erase(core, rows, j, written)
            pivot = _solve(factor[b], size, row)
            for i in range(first, size):
                slope -= row[i] * step[i]
            if pivot > dependence:
                row[size] = 1 / np.sqrt(pivot)
                step[size] = slope * row[size]
                index[b, size] = j
                size += 1
        going[b] = score[b, 0] > limit[b] and size < k
        held[b] = size
        if size > first:
            step[:first] = 0
            _refit(core, values, rows, index[b], factor[b], size, step, value[b], residual[b])
