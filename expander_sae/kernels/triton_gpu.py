"""The operations of `reference.py` for NVIDIA GPUs, in Triton.

Encoding reads the residual in panels [⌈B / s⌉, m, s], so that one row index fetches s neighbouring samples,
and values and rows as [w, n], rows as int16 where m allows. Scores are summed in float32 (float64 for
float64) whatever the inputs. Up to 16 entries a column they are never stored: the first kernel keeps the
largest of each block, and those of the k blocks that matter are worked out again. See `triton_topk.py`.

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
from expander_sae.kernels.exact_topk import topk_of_columns
from expander_sae.kernels.precision import selection_dtype
from expander_sae.kernels.tensor_cache import PerTensor
from expander_sae.kernels.triton_kernels import (
    correlate_at_kernel,
    grouped_outer_kernel,
    outer_kernel,
    score_kernel,
    synthesize_kernel,
)
from expander_sae.kernels.triton_topk import (
    Plan,
    accumulator,
    keys_of,
    list_blocks,
    on_device,
    plan,
    select_again,
    select_stored,
)

_RECOMPUTE_WIDTH = 16
"""Up to this width working a score out again is cheaper than storing all of them."""

_STORED_SCORES = 1 << 28
"""Most scores that are kept at a time."""

_LAUNCHED_SAMPLES = 1 << 19
"""Most samples a launch: the panels are the second axis of a grid, which ends at 65535."""

_PANEL_BYTES = 128 << 10
_PROGRAMS = 2048
"""Programs that a launch should have at least, so that every multiprocessor is busy."""

_TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_layouts = PerTensor()


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


def _transposed_rows(rows: Tensor, m: int) -> Tensor:
    """[w, n], int16 where every row fits; kept while `rows` lives."""
    kind = torch.int16 if m <= 1 << 15 else torch.int32
    return _layouts.get(rows, kind, lambda: rows.t().to(kind).contiguous())


def _panel_width(m: int, dtype: torch.dtype) -> int:
    """Samples a panel: 16 to 64, so that a panel fits into a multiprocessor's near cache if it can."""
    width = 64
    while width > 16 and m * width * dtype.itemsize > _PANEL_BYTES:
        width //= 2
    return width


def _panels(residual: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """[⌈B / width⌉, m, width], zeros in the places past the batch."""
    batch, m = residual.shape
    whole = -(-batch // width)
    out = residual.new_zeros if batch % width else residual.new_empty
    panels = out((whole, m, width), dtype=dtype)
    full = batch // width
    panels[:full] = residual[: full * width].view(full, width, m).transpose(1, 2)
    if batch % width:
        panels[full, :, : batch % width] = residual[full * width :].t()
    return panels


def _score(
    values: Tensor,
    rows: Tensor,
    residual: Tensor,
    bias: Tensor | None,
    cut: Plan | None,
    scores: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Fill scores [B, n] (without bias) if given, and return the block maxima of their keys if `cut` is.

    values, rows [w, n]. dtype: of the panels.
    """
    (batch, m), (w, n) = residual.shape, rows.shape
    width = _panel_width(m, dtype)
    # Fewer features a tile than threads: rows and values then need no way through shared memory.
    features = max(64, cut.block if cut else 1)
    tiles, groups = -(-n // features), -(-batch // width)
    pieces = -(-tiles // min(tiles, max(1, _PROGRAMS // groups)))
    blocks = cut.blocks if cut else 0
    total = torch.promote_types(values.dtype, residual.dtype)
    keys = keys_of(total)
    maxima = torch.empty(batch, blocks, dtype=keys.dtype, device=residual.device)
    panels = _panels(residual, width, dtype)
    with on_device(residual):
        score_kernel[(-(-tiles // pieces), groups)](
            values, rows, panels, values if bias is None else bias, values if scores is None else scores,
            maxima, n, m, w, batch, blocks, pieces,
            STORE=scores is not None, MAXIMA=cut is not None, HAS_BIAS=bias is not None,
            ACCUMULATOR=accumulator(total), LOWEST=keys.lowest, BLOCK=cut.block if cut else 1,
            FEATURES=features, SAMPLES=width, num_warps=features // 16, enable_fp_fusion=True,
        )  # fmt: skip
    return maxima


def correlate(values: Tensor, rows: Tensor, residual: Tensor) -> Tensor:
    """residual · W: [B, m] -> [B, n]."""
    dtype = _check(values, rows, residual)
    return _correlate(values, rows, residual, dtype)


def _correlate(values: Tensor, rows: Tensor, residual: Tensor, dtype: torch.dtype) -> Tensor:
    out = torch.empty(residual.shape[0], rows.shape[0], dtype=dtype, device=residual.device)
    columns, across = values.t().contiguous(), _transposed_rows(rows, residual.shape[1])
    for tile in reference.tiles(residual.shape[0], _LAUNCHED_SAMPLES):
        _score(columns, across, residual[tile].contiguous(), None, None, out[tile], residual.dtype)
    return out


def correlate_topk(
    values: Tensor, rows: Tensor, residual: Tensor, bias: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of residual · W + bias; see `reference.py`.

    Features ascending. Where k or n is too large for the fused selection, the scores are kept and
    `exact_topk.py` selects.
    """
    batch, n = residual.shape[0], rows.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    dtype = _check(values, rows, residual, *([] if bias is None else [bias]))
    index = torch.empty(batch, k, dtype=torch.int64, device=residual.device)
    value = torch.empty(batch, k, dtype=dtype, device=residual.device)
    total = torch.float64 if dtype == torch.float64 else torch.float32
    cut = plan(n, k)
    if not cut.feasible:
        for tile in reference.tiles(batch, max(1, _STORED_SCORES // n)):
            every = _correlate(values, rows, residual[tile], total)
            every = every if bias is None else every + bias
            index[tile], value[tile] = topk_of_columns(every.t(), k)
        return index, value
    again = rows.shape[1] <= _RECOMPUTE_WIDTH
    columns, across = values.t().contiguous(), _transposed_rows(rows, residual.shape[1])
    chosen_by = selection_dtype(residual.dtype)
    step = _LAUNCHED_SAMPLES if again else max(1, min(_LAUNCHED_SAMPLES, _STORED_SCORES // n))
    for tile in reference.tiles(batch, step):
        part = residual[tile].contiguous()
        scores = None if again else torch.empty(part.shape[0], n, dtype=total, device=part.device)
        listed = list_blocks(_score(columns, across, part, bias, cut, scores, chosen_by), cut)
        if scores is None:
            index[tile], value[tile] = select_again(columns, across, part, bias, listed, cut)
            continue
        index[tile], value[tile] = select_stored(scores, bias, listed, cut)
        if chosen_by != residual.dtype:
            exact = correlate_at(values, rows, part, index[tile])
            value[tile] = exact if bias is None else exact + bias[index[tile]]
    return index, value


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
