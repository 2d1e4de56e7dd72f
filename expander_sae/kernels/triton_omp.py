"""Orthogonal matching pursuit on a GPU, in Triton: from first pick to last nothing returns to the host.

A pick is two launches. `scan_kernel` correlates all columns with the residuals and keeps the best of each
sample, without storing scores; where columns are dense, or better multiplied as dense ones, a matrix
product stores them instead. `take_kernel`, one program a sample, does the recursion of
`pursuit/active_set.py`: overlaps with the held columns, the new row of L⁻¹, coefficients, and the residual.
A sample that has stopped has a flag, and costs next to nothing. The launches do not depend on the data, so
that a CUDA graph can capture them.

float32 and float64; 16-bit inputs are worked on in float32. The codes are those of `pursuit.block_omp` up to
rounding, and the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from expander_sae.kernels import reference
from expander_sae.kernels.triton_kernels import scan_kernel
from expander_sae.kernels.triton_layouts import grid_of, prepare, tile_of, transposed_rows, unrolled
from expander_sae.kernels.triton_omp_kernels import GIVEN, SCANNED, STORED, take_kernel
from expander_sae.kernels.triton_topk import accumulator, on_device, topk_of_rows
from expander_sae.machine.batch_sizes import samples_at_once

_ON_CPU = 256
"""Samples at once in the interpreter."""

_LINES = 1024
"""Numbers of L⁻¹ that a program holds at a time."""

_CHUNK = 128
"""Columns that a warp looks through at a time for one sample."""

_DENSE_WIDTH, _SPARSE_WIDTH = 32, 8
"""Entries of every held column that are read at once."""

Scores = Callable[[Tensor], Tensor]
"""Residual [B, m] to Wᵀr [B, n]."""


@dataclass(frozen=True)
class Columns:
    """Unit (or zero) columns: values, rows [n, w]; rows None where values are dense columns [n, m]."""

    values: Tensor
    rows: Tensor | None
    m: int

    @property
    def n(self) -> int:
        return self.values.shape[0]


class _Pursuit:
    """Samples and what they hold so far; `take` gives each of them one column more."""

    def __init__(self, columns: Columns, target: Tensor, limit: Tensor, k: int, absolute: bool) -> None:
        batch, device = target.shape[0], target.device
        self.columns, self.k, self.absolute, self.target = columns, k, absolute, target
        self.limit = limit.contiguous()
        self.index = torch.full((batch, k), -1, dtype=torch.int64, device=device)
        self.value, self.move = (target.new_zeros(batch, k) for _ in range(2))
        self.inverse = target.new_empty(batch, k, k)
        self.held = torch.zeros(batch, dtype=torch.int32, device=device)
        self.going = torch.ones_like(self.held)
        self.tried = torch.zeros(-(-batch // 64), columns.n, dtype=torch.int64, device=device)
        # Dense columns need no place to be written out.
        self.written = target.new_zeros(batch if columns.rows is not None else 1, columns.m)

    def take(
        self,
        find: int,
        residual: Tensor,
        lanes: int,
        scores: Tensor,
        best: Tensor,
        column: Tensor,
        first: bool = True,
    ) -> None:
        """One column more for each going sample, from residual [⌈B / lanes⌉, m, lanes]; see `take_kernel`."""
        values, rows = self.columns.values, self.columns.rows
        places = max(2, triton.next_power_of_2(self.k))
        # Warps cost barriers: few, except where a program reads all scores of its sample or whole columns.
        warps = max(1 if find == SCANNED else 4, min(8, places // 64))
        dependence = 1e-12 if values.dtype == torch.float64 else 1e-6
        with on_device(values):
            take_kernel[(self.target.shape[0],)](
                values, values if rows is None else rows, residual, scores, best, column, self.tried,
                self.going, self.held, self.limit, self.written, self.move, self.inverse, self.index,
                self.value, self.columns.n, self.columns.m, values.shape[1], self.k, self.target.shape[0],
                best.shape[0], int(first), dependence,
                FIND=find, DENSE=rows is None, ABSOLUTE=self.absolute, ACCUMULATOR=accumulator(values.dtype),
                LANES=lanes, PARTS=triton.next_power_of_2(best.shape[0]), PLACES=places,
                LINES=max(1, _LINES // places), WIDTH=_SPARSE_WIDTH if rows is not None else _DENSE_WIDTH,
                CHUNK=_CHUNK * warps, num_warps=warps, enable_fp_fusion=True,
            )  # fmt: skip


def _scanning(pursuit: _Pursuit) -> None:
    """k picks from scores that are never stored."""
    columns, batch = pursuit.columns, pursuit.target.shape[0]
    assert columns.rows is not None
    (n, w), m = columns.rows.shape, columns.m
    kind = pursuit.target.dtype
    ready = prepare(columns.values, pursuit.target, None, kind)
    across = transposed_rows(columns.rows, m)
    groups = ready.panels.shape[0]
    grid = grid_of(tile_of(m, kind), n, groups, across.device)
    tile, parts = grid.tile, grid.parts
    best = pursuit.target.new_empty(parts, batch)
    column = torch.empty(parts, batch, dtype=torch.int32, device=best.device)
    for _ in range(pursuit.k):
        with on_device(best):
            scan_kernel[(parts, groups)](
                ready.columns, across, ready.panels, pursuit.going, best, column,
                n, m, w, batch, grid.pieces,
                ABSOLUTE=pursuit.absolute, ACCUMULATOR=accumulator(kind), FEATURES=tile.features,
                SAMPLES=tile.samples, WIDTH=unrolled(w), num_warps=tile.warps, enable_fp_fusion=True,
            )  # fmt: skip
        pursuit.take(SCANNED, ready.panels, tile.samples, best, best, column)


def _storing(pursuit: _Pursuit, scores: Scores) -> None:
    """k picks from stored scores."""
    residual = pursuit.target.clone()
    none = torch.zeros(1, 1, dtype=torch.int32, device=residual.device)
    for _ in range(pursuit.k):
        pursuit.take(STORED, residual, 1, scores(residual).contiguous(), residual[:1], none)


def _in_rounds(pursuit: _Pursuit, scores: Scores, block: int) -> None:
    """Rounds of `block` columns. The host looks only whether rounds are wanted beyond ⌈k / block⌉ of them."""
    residual, n = pursuit.target.clone(), pursuit.columns.n
    tried = torch.zeros(residual.shape[0], 0, dtype=torch.int64, device=residual.device)
    while tried.shape[1] < n:
        found = scores(residual)
        if pursuit.absolute:
            found.abs_()
        found.scatter_(1, tried, -torch.inf)
        column, best = topk_of_rows(found, None, min(block, n - tried.shape[1]))
        best, order = best.sort(dim=1, descending=True, stable=True)
        column = column.gather(1, order)
        tried = torch.cat([tried, column], dim=1)
        given, named = best.t().contiguous(), column.t().to(torch.int32).contiguous()
        for place in range(given.shape[0]):
            at = slice(place, place + 1)
            pursuit.take(GIVEN, residual, 1, found, given[at], named[at], first=place == 0)
        if tried.shape[1] >= pursuit.k and not bool(pursuit.going.any()):
            break


def omp(
    columns: Columns,
    target: Tensor,
    limit: Tensor,
    k: int,
    absolute: bool,
    block: int = 1,
    scores: Scores | None = None,
) -> tuple[Tensor, Tensor]:
    """(index int64 [B, k], value [B, k]) of target [B, m]; meaning as in `pursuit.block_omp`.

    Args:
        limit: [B], the score at or under which a sample stops.
        scores: correlations, for stored ones; without it, columns are sparse and block is 1.

    Memory: k² + 2k + 2m numbers a sample, and n more where scores are stored.
    """
    kind = torch.promote_types(torch.promote_types(columns.values.dtype, target.dtype), torch.float32)
    rows = None if columns.rows is None else columns.rows.contiguous()
    columns = Columns(columns.values.to(kind).contiguous(), rows, columns.m)
    index = torch.empty(target.shape[0], k, dtype=torch.int64, device=target.device)
    value = target.new_empty(target.shape[0], k)
    numbers = k * (k + 2) + 3 * columns.m + (2 * columns.n if scores else columns.n // 8)
    for part in reference.tiles(
        target.shape[0], samples_at_once(target.device, kind.itemsize * numbers, _ON_CPU)
    ):
        pursuit = _Pursuit(columns, target[part].to(kind), limit[part].to(kind), k, absolute)
        if scores is None:
            _scanning(pursuit)
        elif block == 1:
            _storing(pursuit, scores)
        else:
            _in_rounds(pursuit, scores, block)
        index[part], value[part] = pursuit.index, pursuit.value
    return index, value
