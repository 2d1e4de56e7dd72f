"""The operations of `reference.py` for CPUs, compiled by numba.

Scoring works on tiles of 64 samples, one sample a lane. Top-k: the largest score of each of about
4k blocks of features gives a threshold that at least k scores reach; about 1.2 k do, are listed, and
an exact selection runs among them. Beyond 8192 features the list goes on from chunk to chunk. A
list that fills up (ties, NaN, equal rows) is cut to its k best, so nothing is ever lost. The rules
for ties and NaN are those of `exact_topk.py`.

float32 and float64, CPU. Threads: as many as `torch.get_num_threads()`; results do not depend on it.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.kernels import numba_gathers as gathers
from expander_sae.kernels import numba_loops as loops
from expander_sae.kernels import numba_tied as tied
from expander_sae.kernels import threads
from expander_sae.machine.piece_sizes import LANES, SCORED_FEATURES

_scratch = threading.local()

undisturbed = threads.undisturbed
"""Context in which PyTorch's own threads keep out of the way of these kernels'."""


def _check(values: Tensor, rows: Tensor, *others: Tensor) -> None:
    for tensor in (values, *others):
        if tensor.dtype != values.dtype or values.dtype not in (torch.float32, torch.float64):
            found = f"{values.dtype} and {tensor.dtype}"
            raise TypeError(f"numba kernels: found {found}, expected all float32 or all float64")
    if rows.dtype != torch.int32:
        raise TypeError(f"rows: found {rows.dtype}, expected int32")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _index(index: Tensor) -> np.ndarray:
    return _array(index.to(torch.int64))


def _tiles(batch: int) -> list[int]:
    return threads.even_bounds(-(-batch // LANES))


def correlate(values: Tensor, rows: Tensor, residual: Tensor) -> Tensor:
    """residual · W: [B, m] -> [B, n]."""
    _check(values, rows, residual)
    batch, n = residual.shape[0], rows.shape[0]
    out = residual.new_empty(batch, n)
    if batch:
        arrays = _array(values), _array(rows), _array(residual)
        threads.run(loops.correlate, _tiles(batch), *arrays, out.numpy())
    return out


def correlate_topk(
    values: Tensor, rows: Tensor, residual: Tensor, bias: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of residual · W + bias; see `reference.py`."""
    batch, n = residual.shape[0], rows.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    bias = values.new_zeros(n) if bias is None else bias
    _check(values, rows, residual, bias)
    index = torch.empty(batch, k, dtype=torch.int64)
    value = residual.new_empty(batch, k)
    if batch:
        arrays = _array(values), _array(rows), _array(residual), _array(bias)
        threads.run(_topk_tiles, _tiles(batch), *arrays, index.numpy(), value.numpy())
    return index, value


def _topk_tiles(
    values: np.ndarray,
    rows: np.ndarray,
    residual: np.ndarray,
    bias: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    start: int,
    stop: int,
) -> None:
    scores = _kept_scratch(min(rows.shape[0], SCORED_FEATURES), values.dtype)
    loops.correlate_topk(values, rows, residual, bias, index, value, scores, start, stop)


def _kept_scratch(n: int, dtype: np.dtype) -> np.ndarray:
    """[n, LANES] of this thread, aligned; kept, because fresh pages cost as much as the scoring."""
    held = getattr(_scratch, "scores", None)
    if held is None or held.dtype != dtype or held.shape[0] < n:
        kind = torch.float32 if dtype == np.float32 else torch.float64
        held = torch.empty(n, LANES, dtype=kind).numpy()
        _scratch.scores = held
    return held[:n]


def tied_forward(
    values: Tensor, rows: Tensor, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(h - b_dec, index, value, ĥ, gradient in ĥ of the mean over b of ‖ĥ_b - h_b‖²); see `tied.py`."""
    _check(values, rows, b_enc, b_dec, h)
    batch, n = h.shape[0], rows.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    index, value = torch.empty(batch, k, dtype=torch.int64), h.new_empty(batch, k)
    centred, rebuilt, error = (torch.empty_like(h, memory_format=torch.contiguous_format) for _ in range(3))
    if batch:
        scale = values.new_tensor(2 / batch).numpy()[()]
        given = _array(values), _array(rows), _array(b_enc), _array(b_dec), _array(h), scale
        made = (part.numpy() for part in (centred, index, value, rebuilt, error))
        threads.run(_tied_tiles, _tiles(batch), *given, *made)
    return centred, index, value, rebuilt, error


def _tied_tiles(
    values: np.ndarray,
    rows: np.ndarray,
    b_enc: np.ndarray,
    b_dec: np.ndarray,
    h: np.ndarray,
    scale: Any,
    centred: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    rebuilt: np.ndarray,
    error: np.ndarray,
    start: int,
    stop: int,
) -> None:
    first, last = start * LANES, min(stop * LANES, h.shape[0])
    tied.centre(h, b_dec, centred, first, last)
    _topk_tiles(values, rows, centred, b_enc, index, value, start, stop)
    gathers.synthesize(values, rows, index, value, rebuilt, first, last)
    tied.finish(rebuilt, b_dec, h, scale, error, first, last)


def correlate_at(values: Tensor, rows: Tensor, residual: Tensor, index: Tensor) -> Tensor:
    """⟨w_j, residual[b]⟩ for j = index[b, s]: residual [B, m], index [B, k] -> [B, k]; 0 where j = -1."""
    _check(values, rows, residual)
    out = residual.new_empty(index.shape)
    arrays = _array(values), _array(rows), _array(residual), _index(index)
    threads.run(gathers.correlate_at, threads.even_bounds(index.shape[0]), *arrays, out.numpy())
    return out


def synthesize(values: Tensor, rows: Tensor, index: Tensor, value: Tensor, m: int) -> Tensor:
    """W x for sparse codes: index, value [B, k] -> [B, m]."""
    _check(values, rows, value)
    out = value.new_empty(index.shape[0], m)
    arrays = _array(values), _array(rows), _index(index), _array(value)
    threads.run(gathers.synthesize, threads.even_bounds(index.shape[0]), *arrays, out.numpy())
    return out


def _by_feature(index: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(places in order of feature, starts [n + 1], bounds of features that share the places evenly)."""
    order, starts = gathers.by_feature(index, n)
    shares = threads.even_bounds(int(starts[n]))
    bounds = [0, *(int(b) for b in np.searchsorted(starts, shares[1:-1])), n]
    return order, starts, bounds


def scatter_outer(rows: Tensor, index: Tensor, coefficient: Tensor, residual: Tensor) -> Tensor:
    """Σ_b Σ_{s: index[b, s] = j} coefficient[b, s] · residual[b, rows[j]] as [n, w]; 0 where never picked."""
    _check(coefficient, rows, residual)
    out = residual.new_empty(rows.shape)
    order, starts, bounds = _by_feature(_index(index), rows.shape[0])
    arrays = _array(rows), _array(coefficient), _array(residual)
    threads.run(gathers.scatter_outer, bounds, order, starts, *arrays, out.numpy())
    return out


def tied_gradients(
    values: Tensor, rows: Tensor, index: Tensor, value: Tensor, error: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of a tied autoencoder in one pass; see `reference.tied_gradients`."""
    _check(values, rows, value, error, residual)
    d_values, d_bias = torch.empty_like(values), values.new_empty(rows.shape[0])
    order, starts, bounds = _by_feature(_index(index), rows.shape[0])
    arrays = _array(values), _array(rows), _array(value), _array(error), _array(residual)
    threads.run(gathers.tied_gradients, bounds, order, starts, *arrays, d_values.numpy(), d_bias.numpy())
    return d_values, d_bias


def omp(
    values: Tensor, rows: Tensor, target: Tensor, limit: Tensor, k: int, absolute: bool
) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit with unit (or zero) columns: (index int64 [B, k], value [B, k]).

    limit [B]: the score at or under which a sample stops. Meaning as in `pursuit.block_omp`, block 1.
    """
    from expander_sae.kernels import numba_omp  # compiled where it is used

    _check(values, rows, target, limit)
    batch = target.shape[0]
    index = torch.full((batch, k), -1, dtype=torch.int64)
    value = target.new_zeros(batch, k)
    if batch:
        dependence = values.new_tensor(1e-12 if values.dtype == torch.float64 else 1e-6).numpy()[()]
        arrays = _array(values), _array(rows), _array(target), _array(limit)
        threads.run(numba_omp.omp, _tiles(batch), *arrays, absolute, dependence, index.numpy(), value.numpy())
    return index, value
