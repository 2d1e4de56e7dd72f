"""How the Triton kernels read their inputs, and the one program that brings them there.

Residuals lie in panels [⌈B / s⌉, m, s], so that one row index fetches s neighbouring samples, and values and
rows as [w, n], so that neighbouring features are read at once; rows as int16 where m allows.
"""

# ruff: noqa: ANN001, ANN201
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from expander_sae.kernels.tensor_cache import PerTensor
from expander_sae.kernels.triton_topk import on_device

_PANEL_BYTES = 128 << 10
_ROWS, _FEATURES = 64, 256

_layouts = PerTensor()


@dataclass(frozen=True)
class Tile:
    """What one program of a scan works on at a time: so many features by samples, in so many warps."""

    features: int
    samples: int
    warps: int


def tile_of(m: int, dtype: torch.dtype) -> Tile:
    """The tile of a scan over panels of this dtype, from the times of 54 of them on an H100 at m = 2048.

    float32: 64 samples in 2 warps took 230 µs where 16 in 4 warps took 297 to 425. bfloat16: none was faster
    than panels of up to 128 KB in 4 warps. float64 was not measured.
    """
    if dtype == torch.float32:
        return Tile(64, 64, 2)
    width = 64
    while width > 16 and m * width * dtype.itemsize > _PANEL_BYTES:
        width //= 2
    return Tile(64, width, 4)


def transposed_rows(rows: Tensor, m: int) -> Tensor:
    """[w, n], int16 where every row fits; kept while `rows` lives."""
    kind = torch.int16 if m <= 1 << 15 else torch.int32
    return _layouts.get(rows, kind, lambda: rows.t().to(kind).contiguous())


@triton.jit
def prepare_kernel(
    h, offset, values, centred, panels, columns, m, n, w, batch, panel_programs,
    HAS_OFFSET: tl.constexpr, SAMPLES: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """centred = h − offset [B, m] (if there is one), the same as panels, and columns [w, n] of values [n, w].

    The first `panel_programs` programs take a tile of h each, the others one of values.
    """
    program = tl.program_id(0)
    if program < panel_programs:
        strips = (m + ROWS - 1) // ROWS
        panel = (program // strips).to(tl.int64)
        row = program % strips * ROWS + tl.arange(0, ROWS)
        lane = tl.arange(0, SAMPLES)
        sample = panel * SAMPLES + lane
        inside = (sample < batch)[:, None] & (row < m)[None, :]
        at = sample[:, None] * m + row[None, :]
        x = tl.load(h + at, mask=inside, other=0)
        if HAS_OFFSET:
            kind = centred.dtype.element_ty
            x = x.to(kind) - tl.load(offset + row, mask=row < m, other=0).to(kind)[None, :]
            x = tl.where(inside, x, tl.zeros_like(x))
            tl.store(centred + at, x, mask=inside)
        tile = panels + panel * m * SAMPLES + row[:, None] * SAMPLES + lane[None, :]
        tl.store(tile, tl.trans(x).to(panels.dtype.element_ty), mask=(row < m)[:, None])
    else:
        feature = (program - panel_programs) * FEATURES + tl.arange(0, FEATURES)
        source = values + feature.to(tl.int64) * w
        to = columns + feature
        for _ in range(w):
            tl.store(to, tl.load(source, mask=feature < n, other=0), mask=feature < n)
            source += 1
            to += n


@dataclass(frozen=True)
class Prepared:
    """columns [w, n] of values; panels of centred [B, m], which is h itself where nothing was subtracted."""

    columns: Tensor
    panels: Tensor
    centred: Tensor


def prepare(
    values: Tensor,
    h: Tensor,
    offset: Tensor | None,
    samples: int,
    dtype: torch.dtype,
    centred: Tensor | None = None,
) -> Prepared:
    """The layouts of values [n, w] and of h [B, m] − offset [m], its panels of `samples` in `dtype`.

    Args:
        centred: [B, m], where the difference goes; needed where there is an offset.
    """
    (batch, m), (n, w) = h.shape, values.shape
    values, h = values.contiguous(), h.contiguous()
    if offset is None or centred is None:
        offset, centred = None, h
    panels = torch.empty(-(-batch // samples), m, samples, dtype=dtype, device=h.device)
    columns = torch.empty(w, n, dtype=values.dtype, device=h.device)
    panel_programs = panels.shape[0] * -(-m // _ROWS)
    with on_device(h):
        prepare_kernel[(panel_programs + -(-n // _FEATURES),)](
            h, h if offset is None else offset.contiguous(), values, centred, panels, columns,
            m, n, w, batch, panel_programs,
            HAS_OFFSET=offset is not None, SAMPLES=samples, ROWS=_ROWS, FEATURES=_FEATURES,
            enable_fp_fusion=True,
        )  # fmt: skip
    return Prepared(columns, panels, centred)
