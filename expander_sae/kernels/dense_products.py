"""The operations of `dense.py` as whole matrix products, at which a GPU is faster than at gathering columns.

A code is written out as a matrix [B, n]. Nothing waits for a value of the device, so that a CUDA graph can
hold a step. Products of float32 are as `torch.set_float32_matmul_precision` asks: at "medium" their inputs
are rounded to bfloat16, and their sums, so the values of codes too, are float32.

`dense.py` takes these on CUDA. They run on any device, so that a CPU can test them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from expander_sae.kernels.exact_topk import topk_of_columns
from expander_sae.kernels.precision import selection_dtype
from expander_sae.kernels.reference import tiles

_STORED_SCORES = 1 << 28
"""Most scores that are kept at a time."""


def _narrow(tensor: Tensor) -> Tensor:
    """As products take it."""
    return tensor.to(selection_dtype(tensor.dtype))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a · b of narrowed matrices, in at least float32."""
    if a.dtype.itemsize >= 4:
        return a @ b
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def _selected(scores: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of scores [B, n] + bias."""
    if scores.is_cuda and find_spec("triton") is not None:
        found = import_module("expander_sae.kernels.triton_topk").topk_of_rows(scores, bias, k)
        return found[0], found[1]
    return topk_of_columns((scores if bias is None else scores + bias).t(), k)


def _written_out(n: int, index: Tensor, coefficient: Tensor) -> Tensor:
    """The code as a narrowed matrix [B, n]; places with index -1 count nothing."""
    kept = _narrow(coefficient.masked_fill(index < 0, 0))
    return kept.new_zeros(index.shape[0], n).scatter_add_(1, index.clamp(min=0), kept)


def correlate(weight: Tensor, residual: Tensor) -> Tensor:
    """residual · W: [B, m] -> [B, n]."""
    return _product(_narrow(residual), _narrow(weight).t()).to(residual.dtype)


def correlate_topk(weight: Tensor, residual: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of residual · W + bias; as in `reference.py`."""
    batch, n = residual.shape[0], weight.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    columns = _narrow(weight).t()
    found = [
        _selected(_product(_narrow(residual[tile]), columns), bias, k)
        for tile in tiles(batch, max(1, _STORED_SCORES // n))
    ]
    if not found:
        return residual.new_empty(0, k, dtype=torch.int64), residual.new_empty(0, k)
    index, value = (torch.cat(list(parts)) for parts in zip(*found, strict=True))
    return index, value.to(residual.dtype)


def correlate_at(weight: Tensor, residual: Tensor, index: Tensor) -> Tensor:
    """⟨w_j, residual[b]⟩ for j = index[b, s]: residual [B, m], index [B, k] -> [B, k]; 0 where j = -1."""
    return correlate(weight, residual).gather(1, index.clamp(min=0)).masked_fill_(index < 0, 0)


def synthesize(weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """W x for sparse codes: index, value [B, k] -> [B, m]."""
    return _product(_written_out(weight.shape[0], index, value), _narrow(weight)).to(value.dtype)


def scatter_outer(n: int, index: Tensor, coefficient: Tensor, residual: Tensor) -> Tensor:
    """Σ_b Σ_{s: index[b, s] = j} coefficient[b, s] · residual[b] as [n, m], zero where never picked."""
    return _product(_written_out(n, index, coefficient).t(), _narrow(residual)).to(residual.dtype)


def tied_step(
    columns: Tensor, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(ĥ, index, value, and the gradients in columns [n, m], b_enc and b_dec) of `tied.tied_step`.

    Five products, each input rounded once.
    """
    n = columns.shape[0]
    centred = h - b_dec
    weight, rows = _narrow(columns), _narrow(centred)
    index, value = _selected(_product(rows, weight.t()), b_enc, k)
    code = _written_out(n, index, value)
    rebuilt = _product(code, weight).add_(b_dec)
    error = (rebuilt - h).mul_(2 / max(h.shape[0], 1))
    errors = _narrow(error)
    slope = _product(errors, weight.t()).gather(1, index)
    d_columns = _product(code.t(), errors)
    d_columns += _product(_written_out(n, index, slope).t(), rows)
    d_enc = slope.new_zeros(n).index_add_(0, index.flatten(), slope.flatten())
    return rebuilt, index, value, d_columns, d_enc, error.sum(dim=0) - d_enc @ columns
