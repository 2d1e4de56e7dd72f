"""Orthogonal matching pursuit on a sparse dictionary, 64 samples a tile, compiled by numba.

The recursion is that of `pursuit/active_set.py`. All samples of a tile hold equally many columns,
so correlations and the inverse factors are worked on lane by lane in vectors; a sample that has
stopped has zero rows. Only overlaps and residuals, O(s·w) a sample, need its own columns.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit

from expander_sae.kernels.numba_loops import load_panel
from expander_sae.kernels.numba_vectors import best_columns
from expander_sae.machine.piece_sizes import LANES

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
def omp(values, rows, target, limit, absolute, dependence, index, value, start, stop):
    """Tiles [start, stop) of 64 samples. values: unit columns; index -1 and value 0 in advance."""
    batch, m = target.shape
    n, k, w = rows.shape[0], index.shape[1], rows.shape[1]
    kind = target.dtype
    panel = np.empty((m, LANES), kind)
    best = np.empty(LANES, kind)
    chosen = np.empty(LANES, np.int32)
    inverse = np.empty((k, k, LANES), kind)
    overlap = np.empty((k, LANES), kind)
    row = np.empty((k, LANES), kind)
    coefficient = np.empty((k, LANES), kind)
    u, pivot, step = np.empty(LANES, kind), np.empty(LANES, kind), np.empty(LANES, kind)
    written = np.zeros(m, kind)
    tried = np.empty(n, np.uint64)
    going = np.empty(LANES, np.bool_)
    for tile in range(start, stop):
        first = tile * LANES
        present = min(LANES, batch - first)
        load_panel(target, first, panel)
        tried[:] = 0
        coefficient[:] = 0
        overlap[:] = 0
        going[:] = False
        going[:present] = True
        for held in range(k):
            if not going.any():
                break
            best_columns(values, rows, panel, absolute, best, chosen)
            for lane in range(present):
                if going[lane]:
                    bit = np.uint64(1) << np.uint64(lane)
                    if best[lane] > limit[first + lane] and tried[chosen[lane]] & bit != 0:
                        best[lane], chosen[lane] = _best_untried(
                            values, rows, panel, lane, absolute, tried, bit
                        )
                    going[lane] = best[lane] > limit[first + lane]
                    if going[lane]:
                        _overlaps(
                            values, rows, chosen[lane], held, index[first + lane], lane, written, overlap
                        )
            _new_rows(inverse, overlap, held, u, row, pivot)
            for lane in range(LANES):
                step[lane] = 0
                if lane < present and going[lane]:
                    b = first + lane
                    bit = np.uint64(1) << np.uint64(lane)
                    tried[chosen[lane]] |= bit
                    while going[lane] and not pivot[lane] > dependence:
                        best[lane], chosen[lane] = _best_untried(
                            values, rows, panel, lane, absolute, tried, bit
                        )
                        going[lane] = best[lane] > limit[b]
                        if going[lane]:
                            tried[chosen[lane]] |= bit
                            _overlaps(values, rows, chosen[lane], held, index[b], lane, written, overlap)
                            _new_row(inverse, overlap, held, lane, row, pivot)
                if going[lane]:
                    j = np.int64(chosen[lane])
                    index[first + lane, held] = j
                    slope = values.dtype.type(0)
                    for t in range(w):
                        slope += values[j, t] * panel[rows[j, t], lane]
                    pivot[lane] = 1 / np.sqrt(pivot[lane])
                    step[lane] = slope * pivot[lane]
                else:
                    pivot[lane] = 0
            for lane in range(LANES):
                row[held, lane] = 1
            for c in range(held + 1):
                for lane in range(LANES):
                    scaled = row[c, lane] * pivot[lane]
                    inverse[held, c, lane] = scaled
                    row[c, lane] = step[lane] * scaled
                    coefficient[c, lane] += row[c, lane]
            for lane in range(present):
                if going[lane]:
                    _subtract(values, rows, held + 1, index[first + lane], row, lane, panel, written)
        for lane in range(present):
            for c in range(k):
                if index[first + lane, c] >= 0:
                    value[first + lane, c] = coefficient[c, lane]
