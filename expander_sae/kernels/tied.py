"""A tied autoencoder's forward and backward pass with as few operations as there are.

    x = the k largest of Wᵀ(h - b_dec) + b_enc,    ĥ = W x + b_dec

The gradient of a loss reaches W twice, as decoder and as encoder, through the same k columns of
each sample; `tied_gradients` of a backend does both in one pass over them. The gradient in b_dec
needs no [B, m] product: the encoder's part of it is -W (gradient in b_enc).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from expander_sae.kernels import dense


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
        centred = h - b_dec
        if rows is None or backend is None:
            index, value = dense.correlate_topk(columns, centred, b_enc, k)
            out = dense.synthesize(columns, index, value)
        else:
            index, value = backend.correlate_topk(columns, rows, centred, b_enc, k)
            out = backend.synthesize(columns, rows, index, value, h.shape[1])
        ctx.save_for_backward(columns, centred, index, value)
        ctx.rows, ctx.backend = rows, backend
        ctx.mark_non_differentiable(index, value)
        return out.add_(b_dec), index, value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        columns, centred, index, value = ctx.saved_tensors
        error = gradients[0].contiguous()
        m = error.shape[1]
        if ctx.rows is None or ctx.backend is None:
            d_columns, d_enc = dense.tied_gradients(columns, index, value, error, centred)
            through_encoder = d_enc @ columns
        else:
            d_columns, d_enc = ctx.backend.tied_gradients(columns, ctx.rows, index, value, error, centred)
            every = torch.arange(columns.shape[0], device=columns.device)[None]
            through_encoder = ctx.backend.synthesize(columns, ctx.rows, every, d_enc[None], m)[0]
        return d_columns, d_enc, error.sum(dim=0) - through_encoder, None, None, None, None


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

    columns: W on its support [n, w] with `rows` [n, w] and a backend, or dense [n, m] without them.
    ĥ is differentiable in columns, b_enc and b_dec; h gets no gradient, nor does the code carry one.
    Entries of `columns` that pad an irregular mask get gradients, which the caller masks.
    """
    return _TiedReconstruction.apply(columns, b_enc, b_dec, h, k, rows, backend)
