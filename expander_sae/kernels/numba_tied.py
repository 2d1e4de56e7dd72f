"""The compiled forward pass of a tied autoencoder in training, tile by tile."""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

from numba import njit

from expander_sae.kernels.numba_gathers import synthesize
from expander_sae.kernels.numba_loops import correlate_topk
from expander_sae.kernels.numba_vectors import LANES

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
def forward(values, rows, scores, b_enc, b_dec, h, scale, centred, index, value, rebuilt, error, start, stop):
    """Tiles [start, stop): centred = h - b_dec, the code, rebuilt = ĥ and error = scale · (ĥ - h)."""
    first, last = start * LANES, min(stop * LANES, h.shape[0])
    for b in range(first, last):
        _subtract(h[b], b_dec, centred[b])
    correlate_topk(values, rows, centred, b_enc, index, value, scores, start, stop)
    synthesize(values, rows, index, value, rebuilt, first, last)
    for b in range(first, last):
        _finish(rebuilt[b], b_dec, h[b], scale, error[b])
