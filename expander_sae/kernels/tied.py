"""A tied autoencoder's forward and backward pass with as few operations as there are.

    x = the k largest of Wᵀ(h - b_dec) + b_enc,    ĥ = W x + b_dec

The gradient of a loss reaches W twice, as decoder and as encoder, through the same k columns of
each sample; `tied_gradients` of a backend does both in one pass over them. The gradient in b_dec
needs no [B, m] product: the encoder's part of it is -W (gradient in b_enc).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from expander_sae.kernels import dense, dense_products


def _forward(
    columns: Tensor,
    b_enc: Tensor,
    b_dec: Tensor,
    h: Tensor,
    k: int,
    rows: Tensor | None,
    backend: ModuleType | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(h - b_dec, index, value, ĥ)."""
    if backend is not None and hasattr(backend, "centred_topk"):
        centred, index, value = backend.centred_topk(columns, rows, h, b_dec, b_enc, k)
        return centred, index, value, backend.synthesize(columns, rows, index, value, h.shape[1]).add_(b_dec)
    centred = h - b_dec
    if rows is None or backend is None:
        index, value = dense.correlate_topk(columns, centred, b_enc, k)
        rebuilt = dense.synthesize(columns, index, value)
    else:
        index, value = backend.correlate_topk(columns, rows, centred, b_enc, k)
        rebuilt = backend.synthesize(columns, rows, index, value, h.shape[1])
    return centred, index, value, rebuilt.add_(b_dec)


def _gradients(
    columns: Tensor,
    centred: Tensor,
    index: Tensor,
    value: Tensor,
    error: Tensor,
    rows: Tensor | None,
    backend: ModuleType | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in columns, b_enc and b_dec from the one in ĥ, `error` [B, m]."""
    if rows is None or backend is None:
        d_columns, d_enc = dense.tied_gradients(columns, index, value, error, centred)
        through_encoder = d_enc @ columns
    else:
        d_columns, d_enc = backend.tied_gradients(columns, rows, index, value, error, centred)
        every = torch.arange(columns.shape[0], device=columns.device)[None]
        through_encoder = backend.synthesize(columns, rows, every, d_enc[None], error.shape[1])[0]
    return d_columns, d_enc, error.sum(dim=0) - through_encoder


class _TiedReconstruction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        columns: Tensor,
        b_enc: Tensor,
        b_dec: Tensor,
        h: Tensor,
        k: int,
        rows: Tensor | None,
        backend: ModuleType | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        centred, index, value, rebuilt = _forward(columns, b_enc, b_dec, h, k, rows, backend)
        ctx.save_for_backward(columns, centred, index, value)
        ctx.rows, ctx.backend = rows, backend
        ctx.mark_non_differentiable(index, value)
        return rebuilt, index, value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        columns, centred, index, value = ctx.saved_tensors
        error = gradients[0].contiguous()
        found = _gradients(columns, centred, index, value, error, ctx.rows, ctx.backend)
        return *found, None, None, None, None


def tied_reconstruction(
    columns: Tensor,
    b_enc: Tensor,
    b_dec: Tensor,
    h: Tensor,
    k: int,
    rows: Tensor | None = None,
    backend: ModuleType | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(ĥ [B, m], index int64 [B, k], value [B, k]) of activations h [B, m].

    ĥ is differentiable in columns, b_enc and b_dec; h gets no gradient, nor does the code carry one.

    Args:
        columns: W on its support [n, w] with `rows` [n, w] and a backend, or dense [n, m] without them.
            Entries that pad an irregular mask get gradients, which the caller masks.
    """
    return _TiedReconstruction.apply(columns, b_enc, b_dec, h, k, rows, backend)


@dataclass(frozen=True)
class TiedStep:
    """ĥ [B, m], its code, and the gradients of the mean over b of ‖ĥ_b - h_b‖²."""

    rebuilt: Tensor
    index: Tensor
    value: Tensor
    d_columns: Tensor
    d_enc: Tensor
    d_dec: Tensor


@torch.no_grad()
def tied_step(
    columns: Tensor,
    b_enc: Tensor,
    b_dec: Tensor,
    h: Tensor,
    k: int,
    rows: Tensor | None = None,
    backend: ModuleType | None = None,
) -> TiedStep:
    """`tied_reconstruction`, the squared error and its gradients at once.

    The same numbers as by autograd: to the last bit in float32 and float64 on a CPU.

    Without autograd there are no temporaries of the loss. A backend that has `tied_forward` does all
    that is O(B·m) in its own threads.
    """
    if rows is None and dense.by_products(columns):
        return TiedStep(*dense_products.tied_step(columns, b_enc, b_dec, h, k))
    if backend is not None and hasattr(backend, "tied_forward"):
        centred, index, value, rebuilt, error = backend.tied_forward(columns, rows, b_enc, b_dec, h, k)
    else:
        centred, index, value, rebuilt = _forward(columns, b_enc, b_dec, h, k, rows, backend)
        error = (rebuilt - h).mul_(2 / max(h.shape[0], 1))
    gradients = _gradients(columns, centred, index, value, error, rows, backend)
    return TiedStep(rebuilt, index, value, *gradients)
