"""Orthogonal matching pursuit on a sparse dictionary, 64 samples a tile, compiled by numba.

The recursion is that of `pursuit/active_set.py`. All samples of a tile hold equally many columns,
so correlations and the inverse factors are worked on lane by lane in vectors; a sample that has
stopped has zero rows. Only overlaps and residuals, O(s·w) a sample, need its own columns.

Every pick correlates all columns anew. A pick changes at most s·w rows of a residual, so that fewer numbers
could be brought up to date, one sample at a time; but these are scattered and no vectors. A prototype took
3.7 to 15 times as long in all, for the same codes (d = 7 at m = 512, 576 and 2048, d = 30 at 576, k = 64).
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit

from expander_sae.kernels.numba_loops import load_panel
from expander_sae.kernels.numba_vectors import best_columns
from expander_sae.machine.piece_sizes import LANES

_SUMS = {"contract", "reassoc", "nsz"}
_compiled = njit(cache=True, nogil=True, fastmath=_SUMS)
# Whatever computes is inlined in `omp`. A function that is called has two machine codes: a process that
# compiles runs the function's own, one that loads `omp` from the cache the copy that was linked into it,
# which LLVM has optimised once more. With fastmath the two may round differently: training diverges.
_inlined = njit(cache=True, nogil=True, fastmath=_SUMS, forceinline=True)
# For what sums nothing up, and becomes vectors without fastmath: rounded as it is written.
_exact = njit(cache=True, nogil=True, forceinline=True)


@_inlined
def _best_untried(values, rows, panel, lane, absolute, tried, bit):
    """(score, column) of one lane among the columns whose `bit` is unset in `tried`."""
    best, column = -np.inf, -1
    for j in range(rows.shape[0]):
        if tried[j] & bit == 0:
            total = values.dtype.type(0)
            for t in range(rows.shape[1]):
                total += values[j, t] * panel[rows[j, t], lane]
            if absolute:
                total = abs(total)
            if total > best:
                best, column = total, j
    return best, column


@_inlined
def _overlaps(values, rows, j, held, index, lane, written, overlap):
    """overlap[i, lane] = ⟨column index[i], column j⟩ for i < held. written: zeros [m], also on return."""
    w = rows.shape[1]
    for t in range(w):
        written[rows[j, t]] += values[j, t]
    for i in range(held):
        column = index[i]
        total = values.dtype.type(0)
        for t in range(w):
            total += values[column, t] * written[rows[column, t]]
        overlap[i, lane] = total
    for t in range(w):
        written[rows[j, t]] = 0


@_inlined
def _new_rows(inverse, overlap, held, u, row, pivot):
    """row = -uᵀL⁻¹ and pivot = 1 - ‖u‖², u = L⁻¹·overlap, in every lane."""
    for lane in range(LANES):
        pivot[lane] = 1
    for c in range(held):
        for lane in range(LANES):
            row[c, lane] = 0
    for i in range(held):
        for lane in range(LANES):
            u[lane] = 0
        for c in range(i + 1):
            for lane in range(LANES):
                u[lane] += inverse[i, c, lane] * overlap[c, lane]
        for c in range(i + 1):
            for lane in range(LANES):
                row[c, lane] -= u[lane] * inverse[i, c, lane]
        for lane in range(LANES):
            pivot[lane] -= u[lane] * u[lane]


@_inlined
def _new_row(inverse, overlap, held, lane, row, pivot):
    """`_new_rows` in one lane."""
    pivot[lane] = 1
    for c in range(held):
        row[c, lane] = 0
    for i in range(held):
        total = row.dtype.type(0)
        for c in range(i + 1):
            total += inverse[i, c, lane] * overlap[c, lane]
        for c in range(i + 1):
            row[c, lane] -= total * inverse[i, c, lane]
        pivot[lane] -= total * total


@_inlined
def _subtract(values, rows, held, index, part, lane, panel, written):
    """panel[:, lane] -= Σ_{i < held} part[i, lane] · column index[i]. written: zeros [m], also on return."""
    w, m = rows.shape[1], panel.shape[0]
    if held * w <= m:
        for i in range(held):
            column, x = index[i], part[i, lane]
            for t in range(w):
                panel[rows[column, t], lane] -= x * values[column, t]
    else:
        for i in range(held):
            column, x = index[i], part[i, lane]
            for t in range(w):
                written[rows[column, t]] += x * values[column, t]
        for r in range(m):
            panel[r, lane] -= written[r]
            written[r] = 0


@_inlined
def _choose(values, rows, panel, absolute, limit, tried, best, chosen, going):
    """Each going lane's best column that it has not tried, or the lane stops. limit: one of each sample."""
    for lane in range(limit.size):
        if going[lane]:
            bit = np.uint64(1) << np.uint64(lane)
            if best[lane] > limit[lane] and tried[chosen[lane]] & bit != 0:
                best[lane], chosen[lane] = _best_untried(values, rows, panel, lane, absolute, tried, bit)
            going[lane] = best[lane] > limit[lane]
            if going[lane]:
                tried[chosen[lane]] |= bit


@_inlined
def _independent(
    values, rows, panel, absolute, limit, dependence, tried, held, index, lane, best, chosen, going,
    inverse, overlap, row, pivot, written,
):  # fmt: skip
    """Leave out columns that depend on those held, until one does not or the lane stops."""
    bit = np.uint64(1) << np.uint64(lane)
    while going[lane] and not pivot[lane] > dependence:
        best[lane], chosen[lane] = _best_untried(values, rows, panel, lane, absolute, tried, bit)
        going[lane] = best[lane] > limit[lane]
        if going[lane]:
            tried[chosen[lane]] |= bit
            _overlaps(values, rows, chosen[lane], held, index, lane, written, overlap)
            _new_row(inverse, overlap, held, lane, row, pivot)


@_inlined
def _steps(values, rows, panel, chosen, going, pivot, step):
    """pivot becomes 1/sqrt(pivot) and step its product with the chosen column's score; else zeros."""
    for lane in range(LANES):
        step[lane] = 0
        if going[lane]:
            j = np.int64(chosen[lane])
            slope = values.dtype.type(0)
            for t in range(rows.shape[1]):
                slope += values[j, t] * panel[rows[j, t], lane]
            pivot[lane] = 1 / np.sqrt(pivot[lane])
            step[lane] = slope * pivot[lane]
        else:
            pivot[lane] = 0


@_exact
def _refit(held, inverse, row, pivot, step, coefficient):
    """Add the chosen columns to the factors and move every coefficient: row becomes what is added."""
    for lane in range(LANES):
        row[held, lane] = 1
        step[lane] *= pivot[lane]
    for c in range(held + 1):
        for lane in range(LANES):
            inverse[held, c, lane] = row[c, lane] * pivot[lane]
            row[c, lane] *= step[lane]
            coefficient[c, lane] += row[c, lane]


@_compiled
def omp(values, rows, target, limit, absolute, dependence, index, value, start, stop):
    """Tiles [start, stop) of 64 samples. values: unit columns; index -1 and value 0 in advance."""
    m, n, k, kind = target.shape[1], rows.shape[0], index.shape[1], target.dtype
    panel, inverse = np.empty((m, LANES), kind), np.empty((k, k, LANES), kind)
    # Apart and not pieces of one array, so that the compiler knows that they do not overlap.
    overlap, row = np.empty((k, LANES), kind), np.empty((k, LANES), kind)
    coefficient, best = np.empty((k, LANES), kind), np.empty(LANES, kind)
    u, pivot, step = np.empty(LANES, kind), np.empty(LANES, kind), np.empty(LANES, kind)
    written, tried = np.zeros(m, kind), np.empty(n, np.uint64)
    chosen, going = np.empty(LANES, np.int32), np.empty(LANES, np.bool_)
    for tile in range(start, stop):
        first, last = tile * LANES, min((tile + 1) * LANES, target.shape[0])
        bound, codes = limit[first:last], index[first:last]
        load_panel(target, first, panel)
        tried[:] = 0
        coefficient[:] = 0
        overlap[:] = 0
        going[:] = False
        going[: last - first] = True
        for held in range(k):
            if not going.any():
                break
            best_columns(values, rows, panel, absolute, best, chosen)
            _choose(values, rows, panel, absolute, bound, tried, best, chosen, going)
            for lane in range(last - first):
                if going[lane]:
                    _overlaps(values, rows, chosen[lane], held, codes[lane], lane, written, overlap)
            _new_rows(inverse, overlap, held, u, row, pivot)
            for lane in range(last - first):
                if going[lane] and not pivot[lane] > dependence:
                    _independent(
                        values, rows, panel, absolute, bound, dependence, tried, held, codes[lane], lane,
                        best, chosen, going, inverse, overlap, row, pivot, written,
                    )  # fmt: skip
                if going[lane]:
                    codes[lane, held] = chosen[lane]
            _steps(values, rows, panel, chosen, going, pivot, step)
            _refit(held, inverse, row, pivot, step, coefficient)
            for lane in range(last - first):
                if going[lane]:
                    _subtract(values, rows, held + 1, codes[lane], row, lane, panel, written)
        for lane in range(last - first):
            for c in range(k):
                if codes[lane, c] >= 0:
                    value[first + lane, c] = coefficient[c, lane]
