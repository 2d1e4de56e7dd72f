"""Compiled passes over [B, m] around the forward pass of a tied autoencoder in training.

They call no compiled function of another file: numba's cache looks at the file of the caller only.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

from numba import njit

# Without fastmath: these sums are rounded as PyTorch rounds them.
_exact = njit(cache=True, nogil=True)


@_exact
def _subtract(a, b, out):
    for i in range(a.shape[0]):
        out[i] = a[i] - b[i]


@_exact
def _finish(rebuilt, b_dec, h, scale, error):
    for i in range(h.shape[0]):
        whole = rebuilt[i] + b_dec[i]
        rebuilt[i] = whole
        error[i] = (whole - h[i]) * scale


@_exact
def centre(h, b_dec, centred, first, last):
    """centred = h - b_dec for samples [first, last)."""
    for b in range(first, last):
        _subtract(h[b], b_dec, centred[b])


@_exact
def finish(rebuilt, b_dec, h, scale, error, first, last):
    """rebuilt += b_dec and error = scale · (rebuilt - h) for samples [first, last)."""
    for b in range(first, last):
        _finish(rebuilt[b], b_dec, h[b], scale, error[b])
