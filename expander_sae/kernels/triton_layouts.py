"""How the Triton kernels read their inputs, and the one program that brings them there.

Residuals lie in panels [⌈B / s⌉, m, s], so that one row index fetches s neighbouring samples, and values and
rows as [w, n], so that neighbouring features are read at once; rows as int16 where m allows. Where the best
of each block of features is wanted, neighbours are the first features of neighbouring blocks.

On an H200 a scan reads its panel from the first cache only while a multiprocessor keeps to one panel: one
program of 32 warps each, over all features. Many small programs, each with a panel of its own, take it from
the second, 1.5 times as long (m = 2048, n = 16384, d = 7, B = 4096, float32: 134 µs against 203).
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
from expander_sae.kernels.triton_topk import Plan, on_device

_PANEL_BYTES = 128 << 10
"""Of a panel at most: it stays in the first cache of a multiprocessor, beside rows and values."""

_LARGEST_TILE = 32, 32
"""Samples and warps of a tile at most."""

_BYTES_AT_ONCE = 16
"""What a thread loads at a time."""

_UNROLLED = 16
"""Up to this width the entries of a column are worked on without a loop."""

_ROWS, _FEATURES = 64, 256

_layouts = PerTensor()


@dataclass(frozen=True)
class Tile:
    """What one program of a scan works on at a time: so many features by samples, in so many warps."""

    features: int
    samples: int
    warps: int


def tile_of(m: int, dtype: torch.dtype) -> Tile:
    """The tile of a scan over panels of this dtype: each thread loads once for an entry of its columns."""
    samples, warps = _LARGEST_TILE
    while samples > 8 and m * samples * dtype.itemsize > _PANEL_BYTES:
        samples //= 2
    return Tile(32 * warps * _BYTES_AT_ONCE // dtype.itemsize // samples, samples, warps)


@dataclass(frozen=True)
class Grid:
    """How the features of each panel are dealt: to `parts` programs, `pieces` tiles to each."""

    tile: Tile
    parts: int
    pieces: int


def multiprocessors(device: torch.device) -> int:
    """How many there are; the interpreter is one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def grid_of(tile: Tile, count: int, panels: int, device: torch.device) -> Grid:
    """One program a multiprocessor, or as many a panel as there are multiprocessors for it."""
    wanted = max(1, multiprocessors(device) // max(1, panels))
    features = min(tile.features, triton.next_power_of_2(count))
    while features > 16 and -(-count // features) < wanted:
        features //= 2
    tiles = -(-count // features)
    pieces = -(-tiles // min(tiles, wanted))
    warps = max(1, tile.warps * features // tile.features)
    return Grid(Tile(features, tile.samples, warps), -(-tiles // pieces), pieces)


def unrolled(w: int) -> int:
    """What kernels take as WIDTH."""
    return w if w <= _UNROLLED else 0


def _row_kind(m: int) -> torch.dtype:
    return torch.int16 if m <= 1 << 15 else torch.int32


def transposed_rows(rows: Tensor, m: int) -> Tensor:
    """[w, n], int16 where every row fits; kept while `rows` lives."""
    kind = _row_kind(m)
    return _layouts.get(rows, kind, lambda: rows.t().to(kind).contiguous())


def blocked_rows(rows: Tensor, m: int, cut: Plan) -> Tensor:
    """[w, cut.block · cut.blocks]: the first features of all blocks, the second ones, …; kept likewise."""

    def make() -> Tensor:
        n, w = rows.shape
        padded = rows.new_zeros(cut.blocks * cut.block, w)
        padded[:n] = rows
        across = padded.view(cut.blocks, cut.block, w).permute(2, 1, 0)
        return across.to(_row_kind(m)).reshape(w, -1).contiguous()

    return _layouts.get(rows, (_row_kind(m), cut.block), make)


@triton.jit
def prepare_kernel(
    h, offset, values, centred, panels, columns, blocked, m, n, w, batch, panel_programs, blocks,
    HAS_OFFSET: tl.constexpr, SAMPLES: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """centred = h − offset [B, m] (if there is one), the same as panels, and columns [w, n] of values [n, w],
    also blocked [w, BLOCK · blocks] where BLOCK is not 0.

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
        for t in range(w):
            value = tl.load(source + t, mask=feature < n, other=0)
            tl.store(to, value, mask=feature < n)
            to += n
            if BLOCK > 0:
                place = feature % BLOCK * blocks + feature // BLOCK
                tl.store(blocked + t * BLOCK * blocks + place, value, mask=feature < n)


@dataclass(frozen=True)
class Prepared:
    """columns [w, n] of values, the same by blocks where asked for, and panels of centred [B, m], which is h
    itself where nothing was subtracted."""

    columns: Tensor
    blocked: Tensor
    panels: Tensor
    centred: Tensor


def prepare(
    values: Tensor,
    h: Tensor,
    offset: Tensor | None,
    dtype: torch.dtype,
    centred: Tensor | None = None,
    cut: Plan | None = None,
) -> Prepared:
    """The layouts of values [n, w] and of h [B, m] − offset [m], its panels in `dtype` as of `tile_of`.

    Args:
        centred: [B, m], where the difference goes; needed where there is an offset.
        cut: whose blocks are wanted, as in `blocked_rows`.
    """
    (batch, m), (n, w) = h.shape, values.shape
    values, h = values.contiguous(), h.contiguous()
    if offset is None or centred is None:
        offset, centred = None, h
    samples = tile_of(m, dtype).samples
    panels = torch.empty(-(-batch // samples), m, samples, dtype=dtype, device=h.device)
    columns = torch.empty(w, n, dtype=values.dtype, device=h.device)
    blocked = columns if cut is None else columns.new_empty(w, cut.block * cut.blocks)
    panel_programs = panels.shape[0] * -(-m // _ROWS)
    with on_device(h):
        prepare_kernel[(panel_programs + -(-n // _FEATURES),)](
            h, h if offset is None else offset.contiguous(), values, centred, panels, columns, blocked,
            m, n, w, batch, panel_programs, cut.blocks if cut else 0,
            HAS_OFFSET=offset is not None, SAMPLES=samples, ROWS=_ROWS, FEATURES=_FEATURES,
            BLOCK=cut.block if cut else 0, enable_fp_fusion=True,
        )  # fmt: skip
    return Prepared(columns, blocked, panels, centred)
