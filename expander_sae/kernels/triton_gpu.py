"""The operations of `reference.py` for NVIDIA GPUs, in Triton.

Encoding takes three launches: one brings inputs into the layouts of `triton_layouts.py` and subtracts the
decoder's bias, one scores, one selects. Scores are summed in float32 (float64 for float64) whatever the
inputs. Up to 16 entries a column they are never stored: the second launch keeps the largest of each block,
and those of the k blocks that matter are worked out again. See `triton_topk.py`.

The backward operations use atomics, so that sums may differ in the last bits from run to run; where
`torch.use_deterministic_algorithms(True)` is set they go through features in a fixed order instead.

bfloat16, float16, float32 and float64. A float32 selection uses bfloat16 panels at matrix product
precision "medium", see `precision.py`.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from expander_sae.kernels import reference
from expander_sae.kernels.precision import selection_dtype
from expander_sae.kernels.triton_kernels import (
    correlate_at_kernel,
    grouped_outer_kernel,
    miss_kernel,
    outer_kernel,
    peak_kernel,
    score_kernel,
    synthesize_kernel,
)
from expander_sae.kernels.triton_layouts import (
    Prepared,
    blocked_rows,
    grid_of,
    prepare,
    tile_of,
    transposed_rows,
    unrolled,
)
from expander_sae.kernels.triton_topk import (
    Operands,
    Plan,
    accumulator,
    keys_of,
    on_device,
    plan,
    select,
    topk_of_rows,
)

_RECOMPUTE_WIDTH = 16
"""Up to this width working a score out again is cheaper than storing all of them."""

_STORED_SCORES = 1 << 28
"""Most scores that are kept at a time."""

_LAUNCHED_SAMPLES = 1 << 18
"""Most samples a launch: the panels are the second axis of a grid, which ends at 65535."""

_NUMBERS = 2048
"""That a program takes where each is on its own."""

_TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def _check(values: Tensor, rows: Tensor, *others: Tensor) -> torch.dtype:
    """The dtype of the result."""
    dtype = values.dtype
    for tensor in (values, *others):
        if tensor.dtype not in _TYPES:
            raise TypeError(f"triton kernels: found {tensor.dtype}, expected a float dtype")
        dtype = torch.promote_types(dtype, tensor.dtype)
    if rows.dtype != torch.int32:
        raise TypeError(f"rows: found {rows.dtype}, expected int32")
    return dtype


def _peaks(ready: Prepared, rows: Tensor, bias: Tensor | None, cut: Plan) -> Tensor:
    """The largest key of each block, [B, cut.blocks], of scores with the bias; rows as `blocked_rows`."""
    (batch, m), w = ready.centred.shape, rows.shape[0]
    panels, values = ready.panels, ready.blocked
    groups = panels.shape[0]
    grid = grid_of(tile_of(m, panels.dtype), cut.blocks, groups, panels.device)
    total = torch.promote_types(values.dtype, ready.centred.dtype)
    keys = keys_of(total)
    maxima = torch.empty(batch, cut.blocks, dtype=keys.dtype, device=panels.device)
    with on_device(panels):
        peak_kernel[(grid.parts, groups)](
            values, rows, panels, values if bias is None else bias, maxima,
            cut.n, m, w, batch, cut.blocks, grid.pieces,
            HAS_BIAS=bias is not None, RAGGED=cut.n < cut.block * cut.blocks, ACCUMULATOR=accumulator(total),
            BLOCK=cut.block, FEATURES=grid.tile.features, SAMPLES=grid.tile.samples, WIDTH=unrolled(w),
            num_warps=grid.tile.warps, enable_fp_fusion=True,
        )  # fmt: skip
    return maxima


def correlate(values: Tensor, rows: Tensor, residual: Tensor) -> Tensor:
    """residual · W: [B, m] -> [B, n]."""
    dtype = _check(values, rows, residual)
    return _correlate(values, rows, residual, dtype)


def _correlate(
    values: Tensor, rows: Tensor, residual: Tensor, dtype: torch.dtype, by: torch.dtype | None = None
) -> Tensor:
    """residual · W in dtype, from panels of the dtype `by`, by default the residual's own."""
    (batch, m), (n, w) = residual.shape, rows.shape
    out = torch.empty(batch, n, dtype=dtype, device=residual.device)
    across, tile = transposed_rows(rows, m), tile_of(m, by or residual.dtype)
    for part in reference.tiles(batch, _LAUNCHED_SAMPLES):
        ready = prepare(values, residual[part], None, by or residual.dtype)
        groups = ready.panels.shape[0]
        grid = grid_of(tile, n, groups, out.device)
        with on_device(out):
            score_kernel[(grid.parts, groups)](
                ready.columns, across, ready.panels, out[part], n, m, w, ready.centred.shape[0], grid.pieces,
                ACCUMULATOR=accumulator(torch.promote_types(values.dtype, residual.dtype)),
                FEATURES=grid.tile.features, SAMPLES=grid.tile.samples, WIDTH=unrolled(w),
                num_warps=grid.tile.warps, enable_fp_fusion=True,
            )  # fmt: skip
    return out


def correlate_topk(
    values: Tensor, rows: Tensor, residual: Tensor, bias: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of residual · W + bias; see `reference.py`.

    Features ascending. Where k or n is too large for the fused selection, the scores are kept and
    `exact_topk.py` selects.
    """
    _, index, value = _topk(values, rows, residual, None, bias, k)
    return index, value


def centred_topk(
    values: Tensor, rows: Tensor, h: Tensor, offset: Tensor, bias: Tensor | None, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(h − offset [B, m], and `correlate_topk` of it), the difference in the launch that lays it out."""
    return _topk(values, rows, h, offset, bias, k)


def _topk(
    values: Tensor, rows: Tensor, h: Tensor, offset: Tensor | None, bias: Tensor | None, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, n = h.shape[0], rows.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    dtype = _check(values, rows, h, *(t for t in (offset, bias) if t is not None))
    kind = h.dtype if offset is None else torch.promote_types(h.dtype, offset.dtype)
    index = torch.empty(batch, k, dtype=torch.int64, device=h.device)
    value = torch.empty(batch, k, dtype=dtype, device=h.device)
    total = torch.float64 if dtype == torch.float64 else torch.float32
    cut = plan(n, k)
    chosen_by = selection_dtype(kind)
    if rows.shape[1] > _RECOMPUTE_WIDTH or not cut.feasible:
        centred = h if offset is None else h - offset
        for tile in reference.tiles(batch, max(1, min(_LAUNCHED_SAMPLES, _STORED_SCORES // n))):
            part = centred[tile]
            index[tile], value[tile] = topk_of_rows(_correlate(values, rows, part, total, chosen_by), bias, k)
            if chosen_by != kind:
                exact = correlate_at(values, rows, part, index[tile])
                value[tile] = exact if bias is None else exact + bias[index[tile]]
        return centred, index, value
    centred = h.contiguous() if offset is None else torch.empty_like(h, dtype=kind).contiguous()
    across, by_blocks = transposed_rows(rows, h.shape[1]), blocked_rows(rows, h.shape[1], cut)
    for tile in reference.tiles(batch, _LAUNCHED_SAMPLES):
        ready = prepare(values, h[tile], offset, chosen_by, centred[tile], cut)
        source = Operands(ready.columns, across, ready.centred)
        select(_peaks(ready, by_blocks, bias, cut), cut, source, bias, index[tile], value[tile])
    return centred, index, value


def _tile(k: int, w: int) -> tuple[int, int, int]:
    """(places, entries) of a column that a program takes at a time, and programs a sample."""
    width = min(triton.next_power_of_2(w), 32)
    places = min(triton.next_power_of_2(k), 512 // width)
    return places, width, -(-k // places)


def _zeros(like: Tensor, *shape: int, dtype: torch.dtype) -> Tensor:
    """Where sums are kept: float64, or float32 for every narrower dtype."""
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.zeros(shape, dtype=kind, device=like.device)


def correlate_at(values: Tensor, rows: Tensor, residual: Tensor, index: Tensor) -> Tensor:
    """⟨w_j, residual[b]⟩ for j = index[b, s]: residual [B, m], index [B, k] -> [B, k]; 0 where j = -1."""
    dtype = _check(values, rows, residual)
    (batch, k), w = index.shape, rows.shape[1]
    out = torch.empty(batch, k, dtype=dtype, device=residual.device)
    if out.numel():
        places, width, programs = _tile(k, w)
        with on_device(residual):
            correlate_at_kernel[(batch, programs)](
                values.contiguous(), rows.contiguous(), residual.contiguous(), index.contiguous(), out,
                residual.shape[1], w, k, accumulator(dtype), places, width, enable_fp_fusion=True,
            )  # fmt: skip
    return out


def synthesize(values: Tensor, rows: Tensor, index: Tensor, value: Tensor, m: int) -> Tensor:
    """W x for sparse codes: index, value [B, k] -> [B, m]."""
    dtype = _check(values, rows, value)
    (batch, k), w = index.shape, rows.shape[1]
    out = _zeros(value, batch, m, dtype=dtype)
    if index.numel() and torch.are_deterministic_algorithms_enabled():
        _synthesize_in_order(values, rows, index, value, out)
    elif index.numel():
        places, width, programs = _tile(k, w)
        with on_device(value):
            synthesize_kernel[(batch, programs)](
                values.contiguous(), rows.contiguous(), index.contiguous(), value.contiguous(), out,
                m, w, k, accumulator(dtype), places, width, enable_fp_fusion=True,
            )  # fmt: skip
    return out.to(dtype)


def _synthesize_in_order(values: Tensor, rows: Tensor, index: Tensor, value: Tensor, out: Tensor) -> None:
    """Add to out [B, m] in a fixed order: index_put_ sorts where determinism is asked for."""
    k, m, w = index.shape[1], out.shape[1], rows.shape[1]
    for tile in reference.tiles(index.shape[0], (1 << 24) // max(k * w, 1)):
        column = index[tile].clamp(min=0)
        coefficient = value[tile].masked_fill(index[tile] < 0, 0).to(out.dtype)
        pieces = coefficient[:, :, None] * values[column].to(out.dtype)
        first = torch.arange(column.shape[0], device=out.device)[:, None, None] * m
        flat = out[tile].view(-1)
        flat.index_put_(((first + rows[column]).flatten(),), pieces.flatten(), accumulate=True)


def _outer(rows: Tensor, index: Tensor, pairs: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """[n, w]: the sum of scatter_outer over one or two pairs (coefficient [B, k], from [B, m])."""
    (n, w), (batch, k) = rows.shape, index.shape
    out = _zeros(index, n, w, dtype=dtype)
    if not index.numel():
        return out
    (first, first_from), (second, second_from) = (
        tuple(t.contiguous() for t in pair) for pair in (pairs[0], pairs[-1])
    )
    m, two, rows = first_from.shape[1], len(pairs) == 2, rows.contiguous()
    places, width, programs = _tile(k, w)
    with on_device(index):
        if torch.are_deterministic_algorithms_enabled():
            ordered, order = index.flatten().sort(stable=True)
            starts = torch.searchsorted(ordered, torch.arange(n + 1, device=index.device))
            grouped_outer_kernel[(n, -(-w // width))](
                order, starts, rows, first, first_from, second, second_from, out, m, w, k,
                two, accumulator(dtype), 16, width, enable_fp_fusion=True,
            )  # fmt: skip
        else:
            outer_kernel[(batch, programs)](
                rows, index.contiguous(), first, first_from, second, second_from, out, m, w, k,
                two, accumulator(dtype), places, width, enable_fp_fusion=True,
            )  # fmt: skip
    return out


def tied_forward(
    values: Tensor, rows: Tensor, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(h - b_dec, index, value, ĥ, gradient in ĥ of the mean over b of ‖ĥ_b - h_b‖²); see `tied.py`."""
    centred, index, value = centred_topk(values, rows, h, b_dec, b_enc, k)
    rebuilt = synthesize(values, rows, index, value, h.shape[1])
    dtype = torch.promote_types(rebuilt.dtype, torch.promote_types(h.dtype, b_dec.dtype))
    if rebuilt.dtype != dtype or not rebuilt.numel():
        rebuilt = rebuilt + b_dec
        return centred, index, value, rebuilt, (rebuilt - h).mul_(2 / max(h.shape[0], 1))
    error = torch.empty_like(rebuilt)
    with on_device(h):
        miss_kernel[(-(-rebuilt.numel() // _NUMBERS),)](
            rebuilt, b_dec.contiguous(), h.contiguous(), error, h.shape[1], h.shape[0], rebuilt.numel(),
            accumulator(dtype), _NUMBERS, enable_fp_fusion=False,
        )  # fmt: skip
    return centred, index, value, rebuilt, error


def scatter_outer(rows: Tensor, index: Tensor, coefficient: Tensor, residual: Tensor) -> Tensor:
    """Σ_b Σ_{s: index[b, s] = j} coefficient[b, s] · residual[b, rows[j]] as [n, w]; 0 where never picked."""
    dtype = _check(coefficient, rows, residual)
    return _outer(rows, index, [(coefficient, residual)], dtype).to(dtype)


def tied_gradients(
    values: Tensor, rows: Tensor, index: Tensor, value: Tensor, error: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of a tied autoencoder, the columns' in one pass; see `reference.tied_gradients`."""
    dtype = _check(values, rows, value, error, residual)
    slope = correlate_at(values, rows, error, index)
    d_values = _outer(rows, index, [(value, error), (slope, residual)], dtype).to(dtype)
    d_bias = _zeros(values, rows.shape[0] + 1, dtype=dtype)
    d_bias.index_add_(0, index.flatten() + 1, slope.flatten().to(d_bias.dtype))
    return d_values, d_bias[1:].to(dtype)
