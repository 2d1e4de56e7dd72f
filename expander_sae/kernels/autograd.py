"""Gradients of the hot operations.

With S_b the features of sample b, the forward pass uses

    correlate_at:  z_bs = w_sᵀ r_b + c_s          synthesize:  y_b = Σ_s x_bs w_s

Their gradients are each other and one more operation, scatter_outer, so a backend that supplies
the three raw operations is differentiable at O(B·k·w) cost; nothing of size [m, n] or [B, n]
appears. A backend of None means dense columns.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from expander_sae.kernels import dense


def _raw_correlate_at(
    backend: ModuleType | None, values: Tensor, rows: Tensor | None, residual: Tensor, index: Tensor
) -> Tensor:
    if backend is None:
        return dense.correlate_at(values, residual, index)
    return backend.correlate_at(values, rows, residual, index)


def _raw_synthesize(
    backend: ModuleType | None, values: Tensor, rows: Tensor | None, index: Tensor, value: Tensor, m: int
) -> Tensor:
    if backend is None:
        return dense.synthesize(values, index, value)
    return backend.synthesize(values, rows, index, value, m)


def _raw_scatter_outer(
    backend: ModuleType | None,
    values: Tensor,
    rows: Tensor | None,
    index: Tensor,
    coefficient: Tensor,
    residual: Tensor,
) -> Tensor:
    if backend is None:
        return dense.scatter_outer(values.shape[0], index, coefficient, residual)
    return backend.scatter_outer(rows, index, coefficient, residual)


class _CorrelateAt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        residual: Tensor,
        bias: Tensor | None,
        backend: ModuleType | None,
        rows: Tensor | None,
        index: Tensor,
        known: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(values, residual, index)
        ctx.backend, ctx.rows, ctx.has_bias = backend, rows, bias is not None
        if known is not None:
            return known.clone()
        z = _raw_correlate_at(backend, values, rows, residual, index)
        if bias is not None:
            z = z + bias[index.clamp(min=0)] * (index >= 0)
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        values, residual, index = ctx.saved_tensors
        (gradient,) = gradients
        gradient = (gradient * (index >= 0)).contiguous()
        d_values = d_residual = d_bias = None
        if ctx.needs_input_grad[0]:
            d_values = _raw_scatter_outer(ctx.backend, values, ctx.rows, index, gradient, residual)
        if ctx.needs_input_grad[1]:
            d_residual = _raw_synthesize(ctx.backend, values, ctx.rows, index, gradient, residual.shape[1])
        if ctx.has_bias and ctx.needs_input_grad[2]:
            d_bias = torch.zeros(values.shape[0], dtype=gradient.dtype, device=gradient.device)
            d_bias.index_add_(0, index.clamp(min=0).flatten(), gradient.flatten())
        return d_values, d_residual, d_bias, None, None, None, None


class _Synthesize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        value: Tensor,
        backend: ModuleType | None,
        rows: Tensor | None,
        index: Tensor,
        m: int,
    ) -> Tensor:
        ctx.save_for_backward(values, value, index)
        ctx.backend, ctx.rows = backend, rows
        return _raw_synthesize(backend, values, rows, index, value, m)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        values, value, index = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        d_values = d_value = None
        if ctx.needs_input_grad[0]:
            d_values = _raw_scatter_outer(ctx.backend, values, ctx.rows, index, value, gradient)
        if ctx.needs_input_grad[1]:
            d_value = _raw_correlate_at(ctx.backend, values, ctx.rows, gradient, index)
        return d_values, d_value, None, None, None, None


def correlate_at(
    backend: ModuleType | None,
    values: Tensor,
    rows: Tensor | None,
    residual: Tensor,
    index: Tensor,
    bias: Tensor | None,
    known: Tensor | None = None,
) -> Tensor:
    """z [B, k] at index [B, k], differentiable in values, residual and bias.

    Args:
        known: z itself where a selection has just computed it; the forward pass then costs nothing.
    """
    return _CorrelateAt.apply(values, residual, bias, backend, rows, index, known)


def synthesize(
    backend: ModuleType | None, values: Tensor, rows: Tensor | None, index: Tensor, value: Tensor, m: int
) -> Tensor:
    """y [B, m], differentiable in values and value."""
    return _Synthesize.apply(values, value, backend, rows, index, m)


def columns_and_inverse(values: Tensor, single: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows of values [n, w] at unit norm, and 1 / norm [n, 1]; 0 for a zero row.

    Rows of one entry are its sign: `single` [n, 1] says which. Times 1 / norm it would be off by rounding,
    and their gradient, which is 0, a rounding error that Adam scales up to whole steps.
    """
    norm = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    inverse = torch.where(norm > 0, norm.reciprocal(), torch.zeros_like(norm))
    unit = values * inverse
    return unit if single is None else torch.where(single & norm.isfinite(), values.sign(), unit), inverse


def through_unit_columns(gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """The gradient in values of `columns_and_inverse`, from the one in its unit columns."""
    # One temporary of [n, w] instead of four: allocation is what costs here.
    along = torch.linalg.vecdot(unit, gradient).unsqueeze(1)
    return torch.addcmul(gradient, unit, along, value=-1).mul_(inverse)


class _UnitColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, single: Tensor | None) -> Tensor:
        unit, inverse = columns_and_inverse(values, single)
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return through_unit_columns(gradients[0], *ctx.saved_tensors), None


def unit_columns(values: Tensor, single: Tensor | None = None) -> Tensor:
    """colnorm: each row of values [n, w] divided by its norm; a zero row stays zero, without NaN.

    Gradient: (g − w·wᵀg) / ‖v‖. `single` as for `columns_and_inverse`.
    """
    return _UnitColumns.apply(values, single)
