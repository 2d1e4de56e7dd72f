"""Orthogonal matching pursuit on a dense dictionary of unit columns, a sample at a time, by numba.

With G = WᵀW and q_1 … q_t the orthonormalised chosen columns, a sample keeps the rows
P_i = Wᵀq_i [n] and the scores α = Wᵀr. Taking column j costs

    u_i = P_i[j],   ℓ² = 1 − ‖u‖²,   P_t = (G_j − Σ_i u_i P_i)/ℓ,   s_t = α_j/ℓ,   α ← α − s_t P_t

which is O(t·n) and reads a panel of k·n numbers that stays in the cache; correlating the residual
anew is O(m·n) each time. The coefficients solve Lᵀx = s at the end, L having the rows (u, ℓ).
Scores by this recursion carry a rounding error of the size of the residual that they started from: once the
best one is small beside it, α is computed from the residual itself, and the recursion goes on from there.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit

# No reassociation and no contraction: what is called here has another machine code in the process that
# compiles than in one that loads from the cache (see `numba_omp.py`); the last digits would then differ.
_compiled = njit(cache=True, nogil=True)

_CHUNK = 1024
"""Columns worked on at once: their sums stay in the innermost cache."""

_REFRESH = 1e-3
"""Best score over ‖r‖ under which the scores are computed anew, r being the residual that they came from."""


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _largest(score, barred, start, stop, absolute):
    """Largest score of columns [start, stop); `barred` [n] is added: 0, or −∞ for a column that was tried."""
    best = barred.dtype.type(-np.inf)
    if absolute:
        for j in range(start, stop):
            best = max(best, abs(score[j]) + barred[j])
    else:
        for j in range(start, stop):
            best = max(best, score[j] + barred[j])
    return best


@_compiled
def _best(score, barred, absolute):
    """(score, column) of the best untried column, the first among equals; column −1 if none."""
    best, where = -np.inf, -1
    for start in range(0, score.shape[0], _CHUNK):
        value = _largest(score, barred, start, min(start + _CHUNK, score.shape[0]), absolute)
        if value > best:
            best, where = value, start
    if where >= 0:
        for j in range(where, min(where + _CHUNK, score.shape[0])):
            if (abs(score[j]) if absolute else score[j]) + barred[j] == best:
                return best, j
    return best, -1


@_compiled
def _take(gram_row, panel, held, u, inverse_pivot, step, score):
    """panel[held] = (gram_row − Σ u_i panel_i)·inverse_pivot and score −= step·panel[held]."""
    n = gram_row.shape[0]
    for start in range(0, n, _CHUNK):
        stop = min(start + _CHUNK, n)
        # Slices, since an index that is a sum might be negative and keeps the loops from vectors.
        row, old, total = panel[held, start:stop], gram_row[start:stop], score[start:stop]
        for c in range(stop - start):
            row[c] = old[c]
        i = 0
        while i + 4 <= held:  # four rows a pass: a quarter of the loads and stores of the sums
            p, q = panel[i, start:stop], panel[i + 1, start:stop]
            r, s = panel[i + 2, start:stop], panel[i + 3, start:stop]
            up, uq, ur, us = u[i], u[i + 1], u[i + 2], u[i + 3]
            for c in range(stop - start):
                row[c] -= up * p[c] + uq * q[c] + ur * r[c] + us * s[c]
            i += 4
        while i < held:
            p, up = panel[i, start:stop], u[i]
            for c in range(stop - start):
                row[c] -= up * p[c]
            i += 1
        for c in range(stop - start):
            row[c] *= inverse_pivot
            total[c] -= step * row[c]


@_compiled
def _solve(factor, step, held, x):
    """x = L⁻ᵀ step for the lower triangular factor [held, held]."""
    for i in range(held - 1, -1, -1):
        total = step[i]
        for c in range(i + 1, held):
            total -= factor[c, i] * x[c]
        x[i] = total / factor[i, i]


@_compiled
def _scores_of_residual(weight, target, index, x, held, residual, score):
    """score = Wᵀr of the residual r = target − W_S x; ‖r‖ is returned."""
    m = target.shape[0]
    for r in range(m):
        residual[r] = target[r]
    for i in range(held):
        for r in range(m):
            residual[r] -= x[i] * weight[index[i], r]
    for j in range(weight.shape[0]):
        total = weight.dtype.type(0)
        for r in range(m):
            total += weight[j, r] * residual[r]
        score[j] = total
    squares = weight.dtype.type(0)
    for r in range(m):
        squares += residual[r] * residual[r]
    return np.sqrt(squares)


@_compiled
def omp(weight, gram, scores, target, length, limit, absolute, dependence, index, value, start, stop):
    """Samples [start, stop). weight [n, m] unit rows, gram [n, n], scores = Wᵀtarget [B, n] (overwritten),
    length [B] = ‖target‖; index −1 and value 0 in advance."""
    n, m = weight.shape
    k = index.shape[1]
    kind = weight.dtype
    panel = np.empty((k, n), kind)
    factor = np.empty((k, k), kind)
    step, x, residual = np.empty(k, kind), np.empty(k, kind), np.empty(m, kind)
    barred = np.empty(n, kind)
    for b in range(start, stop):
        score = scores[b]
        barred[:] = 0
        held = 0
        exact = True  # whether `score` comes from the residual of what is held
        size = length[b]  # of the residual that `score` was last computed from
        while held < k:
            best, j = _best(score, barred, absolute)
            if not exact and best < _REFRESH * size:
                _solve(factor, step, held, x)
                size = _scores_of_residual(weight, target[b], index[b], x, held, residual, score)
                exact = True
                continue
            if j < 0 or not best > limit[b]:
                break
            barred[j] = -np.inf
            pivot = gram[j, j]
            for i in range(held):
                factor[held, i] = panel[i, j]
                pivot -= panel[i, j] * panel[i, j]
            if not pivot > dependence:
                continue
            root = np.sqrt(pivot)
            factor[held, held] = root
            step[held] = score[j] / root
            index[b, held] = j
            _take(gram[j], panel, held, factor[held], weight.dtype.type(1) / root, step[held], score)
            held += 1
            exact = False
        _solve(factor, step, held, x)
        for i in range(held):
            value[b, i] = x[i]
