"""Orthogonal matching pursuit on a sparse dictionary, 64 samples a tile, compiled by numba.

The recursion is that of `pursuit/active_set.py`. Correlations run over all samples of a tile at
once; the update of a sample's inverse factor and residual runs by itself, in O(s² + s·w).
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit

from expander_sae.kernels.numba_loops import load_panel
from expander_sae.kernels.numba_vectors import LANES, best_columns

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
def _append(values, rows, panel, lane, j, held, index, value, inverse, dependence, u, row, written):
    """Take column j into a sample that holds `held` columns; False if it depends on them.

    u, row: scratch [k]; written: zeros [m], zeros again on return. Columns have norm 1.
    """
    w, m = rows.shape[1], written.shape[0]
    for t in range(w):
        written[rows[j, t]] += values[j, t]
    for i in range(held):
        total = values.dtype.type(0)
        for t in range(w):
            total += values[index[i], t] * written[rows[index[i], t]]
        u[i] = total
        row[i] = 0
    for t in range(w):
        written[rows[j, t]] = 0

    pivot = values.dtype.type(1)
    for i in range(held):
        line = inverse[i]
        total = values.dtype.type(0)
        for c in range(i + 1):
            total += line[c] * u[c]
        for c in range(i + 1):
            row[c] -= total * line[c]
        pivot -= total * total
    if not pivot > dependence:
        return False

    scale = 1 / np.sqrt(pivot)
    slope = values.dtype.type(0)
    for t in range(w):
        slope += values[j, t] * panel[rows[j, t], lane]
    step = slope * scale
    row[held] = 1
    index[held] = j
    for c in range(held + 1):
        row[c] *= scale
        inverse[held, c] = row[c]
        value[c] += step * row[c]
    if (held + 1) * w <= m:
        for c in range(held + 1):
            part = step * row[c]
            for t in range(w):
                panel[rows[index[c], t], lane] -= part * values[index[c], t]
    else:
        for c in range(held + 1):
            part = step * row[c]
            for t in range(w):
                written[rows[index[c], t]] += part * values[index[c], t]
        for r in range(m):
            panel[r, lane] -= written[r]
            written[r] = 0
    return True


@_compiled
def omp(values, rows, target, limit, absolute, dependence, index, value, start, stop):
    """Tiles [start, stop) of 64 samples. values: unit columns; index -1 and value 0 in advance."""
    batch, m = target.shape
    n, k = rows.shape[0], index.shape[1]
    kind = target.dtype
    panel = np.empty((m, LANES), kind)
    best = np.empty(LANES, kind)
    chosen = np.empty(LANES, np.int32)
    inverse = np.empty((LANES, k, k), kind)
    u, row = np.empty(k, kind), np.empty(k, kind)
    written = np.zeros(m, kind)
    tried = np.empty(n, np.uint64)
    held = np.empty(LANES, np.int64)
    going = np.empty(LANES, np.bool_)
    for tile in range(start, stop):
        first = tile * LANES
        present = min(LANES, batch - first)
        load_panel(target, first, panel)
        tried[:] = 0
        held[:] = 0
        going[:] = False
        going[:present] = True
        left = present
        while left > 0:
            best_columns(values, rows, panel, absolute, best, chosen)
            for lane in range(present):
                if not going[lane]:
                    continue
                b = first + lane
                score, j = best[lane], np.int64(chosen[lane])
                bit = np.uint64(1) << np.uint64(lane)
                if score > limit[b] and tried[j] & bit != 0:
                    score, j = _best_untried(values, rows, panel, lane, absolute, tried, bit)
                if score > limit[b]:
                    tried[j] |= bit
                    held[lane] += _append(
                        values,
                        rows,
                        panel,
                        lane,
                        j,
                        held[lane],
                        index[b],
                        value[b],
                        inverse[lane],
                        dependence,
                        u,
                        row,
                        written,
                    )
                    going[lane] = held[lane] < k
                else:
                    going[lane] = False
                left -= not going[lane]
