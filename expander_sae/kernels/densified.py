"""Scores by a dense matrix product on a written-out copy of W, everything else on its support.

Where columns are wide for the hardware, tensor cores multiply zeros faster than any kernel gathers. The
copy [n, m] is scratch: it is kept while `rows` lives, zeros included, and each call writes only the
d · n entries. It takes m · n places on this path alone (beside 8 bytes an entry for their positions);
parameters, gradients, optimiser state and files stay O(d · n).

The product that selects is in the inputs' dtype, or in bfloat16 with float32 sums at matrix product
precision "medium" (see `precision.py`); at "high" float32 products use TF32, as everywhere in PyTorch. In
these cases the values of the chosen features are worked out again from unrounded inputs, so a result differs
from the reference's at most by features whose scores are equal up to the rounding.

Plain PyTorch, on any device; on CUDA the selection and the sparse operations are Triton's.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from expander_sae.kernels import reference
from expander_sae.kernels.exact_topk import topk_of_columns
from expander_sae.kernels.precision import selection_dtype
from expander_sae.kernels.tensor_cache import PerTensor

_STORED_SCORES = 1 << 28
"""Most scores that are kept at a time."""

_copies = PerTensor()


def _module(tensor: Tensor, name: str) -> ModuleType | None:
    if not tensor.is_cuda or find_spec("triton") is None:
        return None
    return import_module(f"expander_sae.kernels.{name}")


def _sparse(tensor: Tensor) -> ModuleType:
    """The backend for everything that touches only kept columns."""
    return _module(tensor, "triton_gpu") or reference


def _places(rows: Tensor) -> tuple[Tensor, bool]:
    """(rows as int64, whether no column names a row twice): padding may repeat a row."""
    ordered = rows.sort(dim=1).values
    return rows.long(), not bool((ordered[:, 1:] == ordered[:, :-1]).any())


def written_out(values: Tensor, rows: Tensor, m: int, dtype: torch.dtype) -> Tensor:
    """Wᵀ [n, m] in `dtype`. The tensor is overwritten by the next call with these rows, m and dtype."""
    places, distinct = _copies.get(rows, "places", lambda: _places(rows))
    copy = _copies.get(
        rows, (m, dtype), lambda: torch.zeros(rows.shape[0], m, dtype=dtype, device=rows.device)
    )
    if distinct:
        return copy.scatter_(1, places, values.to(dtype))
    return copy.scatter_(1, places, 0).scatter_add_(1, places, values.to(dtype))


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a · b, summed and returned in at least float32; `dtype` is that of the inputs."""
    if dtype.itemsize >= 4:
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def correlate(values: Tensor, rows: Tensor, residual: Tensor) -> Tensor:
    """residual · W: [B, m] -> [B, n]."""
    dtype = torch.promote_types(values.dtype, residual.dtype)
    return residual.to(dtype) @ written_out(values, rows, residual.shape[1], dtype).t()


def correlate_topk(
    values: Tensor, rows: Tensor, residual: Tensor, bias: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of residual · W + bias; see `reference.py`."""
    batch, n = residual.shape[0], rows.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    out = torch.promote_types(values.dtype, residual.dtype)
    chosen_by = selection_dtype(out)
    weight = written_out(values, rows, residual.shape[1], chosen_by)
    index = torch.empty(batch, k, dtype=torch.int64, device=residual.device)
    value = torch.empty(batch, k, dtype=out, device=residual.device)
    exact = chosen_by == out and (out != torch.float32 or torch.get_float32_matmul_precision() == "highest")
    fused = _module(residual, "triton_topk")
    for tile in reference.tiles(batch, max(1, _STORED_SCORES // n)):
        part = residual[tile].to(chosen_by)
        if fused is not None:
            index[tile], value[tile] = fused.topk_of_rows(_product(part, weight.t(), chosen_by), bias, k)
        else:
            scores = _product(weight, part.t(), chosen_by)
            scores = scores if bias is None else scores.add_(bias[:, None])
            index[tile], value[tile] = topk_of_columns(scores, k)
        if not exact:
            again = correlate_at(values, rows, residual[tile], index[tile])
            value[tile] = again if bias is None else again + bias[index[tile]]
    return index, value


def correlate_at(values: Tensor, rows: Tensor, residual: Tensor, index: Tensor) -> Tensor:
    """⟨w_j, residual[b]⟩ for j = index[b, s]: residual [B, m], index [B, k] -> [B, k]; 0 where j = -1."""
    return _sparse(residual).correlate_at(values, rows, residual, index)


def synthesize(values: Tensor, rows: Tensor, index: Tensor, value: Tensor, m: int) -> Tensor:
    """W x for sparse codes: index, value [B, k] -> [B, m]."""
    return _sparse(value).synthesize(values, rows, index, value, m)


def scatter_outer(rows: Tensor, index: Tensor, coefficient: Tensor, residual: Tensor) -> Tensor:
    """Σ_b Σ_{s: index[b, s] = j} coefficient[b, s] · residual[b, rows[j]] as [n, w]; 0 where never picked."""
    return _sparse(residual).scatter_outer(rows, index, coefficient, residual)


def tied_gradients(
    values: Tensor, rows: Tensor, index: Tensor, value: Tensor, error: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of a tied autoencoder; see `reference.tied_gradients`."""
    return _sparse(residual).tied_gradients(values, rows, index, value, error, residual)
