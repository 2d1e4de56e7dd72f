"""Compiled loops over the k kept columns of each sample. Each writes the part [start, stop) of an output."""

# ruff: noqa: ANN001, ANN201
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
_exact = njit(cache=True, nogil=True)


@_compiled
def correlate_at(values, rows, residual, index, out, start, stop):
    k, w = index.shape[1], rows.shape[1]
    for b in range(start, stop):
        for s in range(k):
            j = index[b, s]
            total = residual.dtype.type(0)
            if j >= 0:
                for t in range(w):
                    total += values[j, t] * residual[b, rows[j, t]]
            out[b, s] = total


@_compiled
def synthesize(values, rows, index, value, out, start, stop):
    k, w, m = index.shape[1], rows.shape[1], out.shape[1]
    for b in range(start, stop):
        for i in range(m):
            out[b, i] = 0
        for s in range(k):
            j = index[b, s]
            if j >= 0:
                x = value[b, s]
                for t in range(w):
                    out[b, rows[j, t]] += x * values[j, t]


@_exact
def by_feature(index, n):
    """Occupied places of index [B, k], ordered by feature, then by place; starts [n + 1] of each feature."""
    flat = index.reshape(-1)
    starts = np.zeros(n + 1, np.int64)
    for j in flat:
        if j >= 0:
            starts[j + 1] += 1
    for j in range(n):
        starts[j + 1] += starts[j]
    following = starts[:n].copy()
    order = np.empty(starts[n], np.int64)
    for place in range(flat.shape[0]):
        j = flat[place]
        if j >= 0:
            order[following[j]] = place
            following[j] += 1
    return order, starts


@_compiled
def scatter_outer(order, starts, rows, coefficient, residual, out, start, stop):
    w, k = rows.shape[1], coefficient.shape[1]
    flat = coefficient.reshape(-1)
    for j in range(start, stop):
        for t in range(w):
            out[j, t] = 0
        for i in range(starts[j], starts[j + 1]):
            place = order[i]
            b, x = place // k, flat[place]
            for t in range(w):
                out[j, t] += x * residual[b, rows[j, t]]


@_compiled
def tied_gradients(order, starts, values, rows, value, error, residual, d_values, d_bias, start, stop):
    w, k = rows.shape[1], value.shape[1]
    flat = value.reshape(-1)
    picked = np.empty(w, values.dtype)
    for j in range(start, stop):
        for t in range(w):
            d_values[j, t] = 0
        total = values.dtype.type(0)
        for i in range(starts[j], starts[j + 1]):
            place = order[i]
            b, x = place // k, flat[place]
            slope = values.dtype.type(0)
            for t in range(w):
                e = error[b, rows[j, t]]
                picked[t] = e
                slope += values[j, t] * e
            for t in range(w):
                d_values[j, t] += x * picked[t] + slope * residual[b, rows[j, t]]
            total += slope
        d_bias[j] = total
