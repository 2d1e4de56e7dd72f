"""The five operations of a sparse dictionary in plain PyTorch: the specification of every backend.

Column j of the decoder W [m, n] has `values[j]` (float [n, w]) in the rows `rows[j]`
(int32 [n, w]). An entry that pads an irregular mask has value 0, so its row is irrelevant, but
`scatter_outer` still writes to it: whoever updates values masks them. Index -1 is an empty place:
it contributes nothing and correlates to 0, whatever its coefficient. Values and residuals are
float32 or float64 and finite. Results are deterministic on a CPU. Nothing here has gradients.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from expander_sae.kernels.exact_topk import topk_of_pieces
from expander_sae.machine.piece_sizes import STORED_SCORES

BATCH_TILE = 256
"""Samples scored at a time."""

FEATURE_TILE = STORED_SCORES // BATCH_TILE
"""Features scored at a time where only the largest scores are kept: no tensor here is of n·B."""

_ELEMENTS = 1 << 21
"""Most elements of a gathered [B, k, w] piece."""


def tiles(batch: int, width: int) -> Iterator[slice]:
    """Cut a batch into slices of at most `width` samples."""
    for start in range(0, batch, max(width, 1)):
        yield slice(start, min(start + max(width, 1), batch))


def _scores(values: Tensor, rows: Tensor, across: Tensor) -> Tensor:
    """(residual W)ᵀ as [n, B], one bag of rows of `across`, residualᵀ [m, B], per column."""
    return F.embedding_bag(rows, across, per_sample_weights=values, mode="sum")


def correlate(values: Tensor, rows: Tensor, residual: Tensor) -> Tensor:
    """residual · W: [B, m] -> [B, n]."""
    out = residual.new_empty(residual.shape[0], rows.shape[0])
    for tile in tiles(residual.shape[0], BATCH_TILE):
        out[tile] = _scores(values, rows, residual[tile].t().contiguous()).t()
    return out


def correlate_topk(
    values: Tensor, rows: Tensor, residual: Tensor, bias: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of residual · W + bias (bias [n] or None).

    Signed scores, the lowest index among equals, NaN above every number, places in no particular
    order.

    Raises:
        ValueError: not 1 <= k <= n.
    """
    batch, n = residual.shape[0], rows.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    index = torch.empty(batch, k, dtype=torch.int64, device=residual.device)
    value = residual.new_empty(batch, k)
    for tile in tiles(batch, BATCH_TILE):
        across = residual[tile].t().contiguous()

        def scores_of(piece: slice, across: Tensor = across) -> Tensor:
            scores = _scores(values[piece], rows[piece], across)
            return scores if bias is None else scores.add_(bias[piece, None])

        index[tile], value[tile] = topk_of_pieces(scores_of, n, k, FEATURE_TILE)
    return index, value


def correlate_at(values: Tensor, rows: Tensor, residual: Tensor, index: Tensor) -> Tensor:
    """⟨w_j, residual[b]⟩ for j = index[b, s]: residual [B, m], index [B, k] -> [B, k]; 0 where j = -1."""
    batch, k = index.shape
    out = residual.new_empty(batch, k)
    for tile in tiles(batch, _ELEMENTS // max(k * rows.shape[1], 1)):
        column = index[tile].clamp(min=0)
        picked = residual[tile].gather(1, rows[column].flatten(1).long()).view(*column.shape, -1)
        out[tile] = (picked * values[column]).sum(2)
    return out.masked_fill_(index < 0, 0)


def synthesize(values: Tensor, rows: Tensor, index: Tensor, value: Tensor, m: int) -> Tensor:
    """W x for sparse codes: index, value [B, k] -> [B, m]."""
    batch, w = index.shape[0], rows.shape[1]
    out = value.new_zeros(batch, m)
    # All n features may be wanted of one sample: then they, too, are taken a few at a time.
    for some in tiles(index.shape[1], _ELEMENTS // w):
        for tile in tiles(batch, _ELEMENTS // max(some.stop - some.start, 1) // w):
            column, coefficient = index[tile, some], value[tile, some]
            coefficient = coefficient.masked_fill(column < 0, 0)
            column = column.clamp(min=0)
            pieces = (coefficient[:, :, None] * values[column]).flatten(1)
            out[tile] = out[tile].scatter_add_(1, rows[column].flatten(1).long(), pieces)
    return out


def _stable_order(keys: Tensor, largest: int) -> Tensor:
    """Places of keys int64 [P], from -1 to `largest`, in order of key, then of place."""
    if keys.device.type != "cpu" or largest + 1 >= 1 << 16:
        return keys.argsort(stable=True)
    # NumPy sorts 16-bit numbers by radix, eight times as fast.
    return torch.from_numpy((keys + 1).numpy().astype(np.uint16).argsort(kind="stable"))


def by_feature(index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Occupied places of index [B, k] in order of feature, then of place: (flat places, starts [n + 1])."""
    flat = index.flatten()
    order = _stable_order(flat, n - 1)
    counts = torch.bincount(flat + 1, minlength=n + 1)
    return order[int(counts[0]) :], F.pad(counts[1:].cumsum(0), (1, 0))


def scatter_outer(rows: Tensor, index: Tensor, coefficient: Tensor, residual: Tensor) -> Tensor:
    """Σ_b Σ_{s: index[b, s] = j} coefficient[b, s] · residual[b, rows[j]] as [n, w]; 0 where never picked."""
    n, w = rows.shape
    out: Tensor | None = None
    for tile in tiles(index.shape[0], _ELEMENTS // max(index.shape[1] * w, 1)):
        column = index[tile].clamp(min=0)
        pieces = residual[tile].gather(1, rows[column].flatten(1).long()).view(-1, w)
        pieces = pieces * coefficient[tile].reshape(-1, 1)
        order, starts = by_feature(index[tile], n)
        part = F.embedding_bag(order, pieces, starts, mode="sum", include_last_offset=True)
        out = part if out is None else out.add_(part)
    return residual.new_zeros(n, w) if out is None else out


def tied_gradients(
    values: Tensor, rows: Tensor, index: Tensor, value: Tensor, error: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of a loss of ĥ = W x, x_s = w_sᵀ r + b_s, where encoder and decoder share W.

    error [B, m] is the loss's gradient in ĥ and residual [B, m] is r; index, value [B, k] is x. With
    c[b, s] = ⟨w_j, error[b]⟩, the gradient in x, returns

        d_values [n, w] = scatter_outer(value, error) + scatter_outer(c, residual),
        d_bias [n] = Σ_b Σ_{s: index[b, s] = j} c[b, s].

    The loss's gradient in r, summed over the batch, is W d_bias.
    """
    (n, w), k = rows.shape, index.shape[1]
    slope = torch.empty_like(value)
    d_values = values.new_zeros(n, w)
    for tile in tiles(index.shape[0], _ELEMENTS // max(k * w, 1)):
        column = index[tile].clamp(min=0)
        at = rows[column].flatten(1).long()
        wrong, right = (part[tile].gather(1, at).view(*column.shape, w) for part in (error, residual))
        slope[tile] = (wrong * values[column]).sum(2).masked_fill_(index[tile] < 0, 0)
        # Both outer products in one sum over the places of a feature.
        pieces = wrong.mul_(value[tile][:, :, None]).addcmul_(right, slope[tile][:, :, None])
        order, starts = by_feature(index[tile], n)
        d_values += F.embedding_bag(order, pieces.view(-1, w), starts, mode="sum", include_last_offset=True)
    return d_values, summed_by_feature(index, slope, n)


def summed_by_feature(index: Tensor, coefficient: Tensor, n: int) -> Tensor:
    """[n]: the sum of the coefficients [B, k] of each feature."""
    occupied = index >= 0
    out = coefficient.new_zeros(n)
    return out.index_add_(0, index[occupied], coefficient[occupied])
