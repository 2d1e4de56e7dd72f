"""Exact top-k on a GPU in two kernels without a sort, a list that can overflow, or a host decision.

Scores become integers that order as they do, with NaN on top and the two zeros equal. Features are cut
into blocks of about √(n / k). Of the largest key of each block the k-th largest, τ, comes from a
bisection. The k blocks listed are those above τ and, lowest first, enough of those at τ. Every score
above τ lies in them; so do the lowest scores equal to τ that can be needed, because each block
at τ that is left out comes after enough others. A bisection among the at most k · √(n / k) scores listed
then finds the k-th largest, and the lowest features among its equals complete the selection. Ties, NaN,
equal rows and k = n take the same path.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from expander_sae.kernels.exact_topk import topk_of_columns

_LARGEST_TILE = 8192
"""Most keys one program holds."""

_LARGEST_BLOCK = 128


@dataclass(frozen=True)
class Plan:
    """How n features are cut for a top-k of k: `blocks` blocks of `block` features."""

    n: int
    k: int
    block: int

    @property
    def blocks(self) -> int:
        return -(-self.n // self.block)

    @property
    def feasible(self) -> bool:
        """Whether both selections fit into one program each."""
        return max(self.list_tile, self.select_tile) <= _LARGEST_TILE

    @property
    def list_tile(self) -> int:
        return triton.next_power_of_2(self.blocks)

    @property
    def select_tile(self) -> int:
        return triton.next_power_of_2(self.k) * self.block


def plan(n: int, k: int) -> Plan:
    """Blocks of the largest power of two that is at most √(n / k): the two selections are about equal."""
    block = 1
    while (2 * block) ** 2 * k <= n and block < _LARGEST_BLOCK:
        block *= 2
    return Plan(n, k, block)


@dataclass(frozen=True)
class Keys:
    """The integers that stand for scores of one kind of float: the least one, and how many bits."""

    dtype: torch.dtype
    lowest: int
    bits: int


def keys_of(dtype: torch.dtype) -> Keys:
    """Keys of scores accumulated for inputs of this dtype."""
    bits = 64 if dtype == torch.float64 else 32
    return Keys(torch.int64 if bits == 64 else torch.int32, -(2 ** (bits - 1)), bits)


def warps(words: int) -> int:
    """Warps for a tile that keeps so many 32-bit words: few, since a single one needs no barriers."""
    return max(1, min(16, words // 1024))


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device; nothing to do on a CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@triton.jit
def ordered(x):
    """Integers in the order of the floats x; NaN above all, both zeros equal."""
    x = tl.where(x == 0, tl.zeros_like(x), x)
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
        keys = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)
        keys = tl.where(x == x, keys, 0x7FFFFFFFFFFFFFFF)
    else:
        bits = x.to(tl.int32, bitcast=True)
        keys = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        keys = tl.where(x == x, keys, 0x7FFFFFFF)
    return keys


@triton.jit
def _chosen(keys, k, LOWEST: tl.constexpr):
    """Which k of the keys are the largest, lowest place first among equals: 0 or 1 each.

    Places with the key LOWEST are empty; at least k are not. A number between the k-th largest key and the
    next one is looked for between the least and the largest, and any will do: with random scores it is found
    in half as many steps as there are bits.
    """
    one = tl.full([], 1, keys.dtype)
    high = tl.max(keys, axis=0)
    low = tl.min(tl.where(keys == LOWEST, high, keys), axis=0)
    reached = tl.sum((keys >= low).to(tl.int32), axis=0)
    while (low < high) & (reached != k):
        middle = (low >> 1) + (high >> 1) + ((low | high) & one)  # rounded up, and never beyond the integers
        count = tl.sum((keys >= middle).to(tl.int32), axis=0)
        enough = count >= k
        low = tl.where(enough, middle, low)
        reached = tl.where(enough, count, reached)
        high = tl.where(enough, high, middle - one)
    above = (keys > low).to(tl.int32)
    equal = (keys == low).to(tl.int32)
    wanted = k - tl.sum(above, axis=0)
    return above | (equal & (tl.cumsum(equal, axis=0) <= wanted).to(tl.int32))


@triton.jit
def _maxima_kernel(
    scores, bias, maxima, n, blocks,
    HAS_BIAS: tl.constexpr, LOWEST: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The largest key of each block of a stored row of scores [B, n]."""
    b = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) * TILE + tl.arange(0, TILE)
    feature = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    present = feature < n
    score = tl.load(scores + b * n + feature, mask=present, other=0)
    if HAS_BIAS:
        score += tl.load(bias + feature, mask=present, other=0)
    keys = tl.where(present, ordered(score), LOWEST)
    tl.store(maxima + b * blocks + block, tl.max(keys, axis=1), mask=block < blocks)


@triton.jit
def _select_kernel(
    maxima, scores, values, rows, residual, bias, listed, index, value, n, m, w, k, blocks,
    RECOMPUTE: tl.constexpr, HAS_BIAS: tl.constexpr, ACCUMULATOR: tl.constexpr, LOWEST: tl.constexpr,
    BLOCK: tl.constexpr, LIST_TILE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """List the k blocks that can hold the k largest scores, and select among these blocks' scores.

    They are read, or worked out again (values, rows [w, n]). listed: int32 [B, k], scratch.
    """
    b = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, LIST_TILE)
    keys = tl.load(maxima + b * blocks + block, mask=block < blocks, other=LOWEST)
    chosen = _chosen(keys, k, LOWEST)
    tl.store(listed + b * k + tl.cumsum(chosen, axis=0) - 1, block, mask=chosen > 0)
    tl.debug_barrier()  # what some threads have stored others read
    lane = tl.arange(0, TILE)
    slot = lane // BLOCK
    feature = tl.load(listed + b * k + slot, mask=slot < k, other=0) * BLOCK + lane % BLOCK
    present = (slot < k) & (feature < n)
    if RECOMPUTE:
        score = tl.zeros([TILE], dtype=ACCUMULATOR)
        values += feature
        rows += feature
        for _ in range(w):
            row = tl.load(rows, mask=present, other=0).to(tl.int32)
            weight = tl.load(values, mask=present, other=0).to(ACCUMULATOR)
            score += weight * tl.load(residual + b * m + row, mask=present, other=0).to(ACCUMULATOR)
            values += n
            rows += n
    else:
        score = tl.load(scores + b * n + feature, mask=present, other=0).to(ACCUMULATOR)
    if HAS_BIAS:
        score += tl.load(bias + feature, mask=present, other=0).to(ACCUMULATOR)
    keys = tl.where(present, ordered(score), LOWEST)
    chosen = _chosen(keys, k, LOWEST)
    place = b * k + tl.cumsum(chosen, axis=0) - 1
    tl.store(index + place, feature.to(tl.int64), mask=chosen > 0)
    tl.store(value + place, score, mask=chosen > 0)


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """What sums of products of this dtype are kept in."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@dataclass(frozen=True)
class Operands:
    """Columns [w, n] and residuals [B, m] from which listed scores are worked out again."""

    values: Tensor
    rows: Tensor
    residual: Tensor


def select(
    maxima: Tensor,
    cut: Plan,
    scores: Tensor | Operands,
    bias: Tensor | None,
    index: Tensor,
    value: Tensor,
) -> None:
    """Fill index int64 [B, k] and value [B, k], features ascending, from the maxima [B, blocks] of keys.

    Args:
        scores: [B, n] without bias, or what they are worked out from.
    """
    width = 0
    if isinstance(scores, Operands):
        values, rows, residual = scores.values, scores.rows, scores.residual
        width, kept = rows.shape[0], residual
    else:
        kept = values = rows = residual = scores
    out = torch.promote_types(values.dtype, residual.dtype)
    keys = keys_of(out)
    listed = torch.empty(maxima.shape[0], cut.k, dtype=torch.int32, device=maxima.device)
    words = max(cut.list_tile, 2 * cut.select_tile) * keys.bits // 32
    with on_device(maxima):
        _select_kernel[(maxima.shape[0],)](
            maxima, kept, values, rows, residual, kept if bias is None else bias, listed, index, value,
            cut.n, residual.shape[1], width, cut.k, cut.blocks,
            RECOMPUTE=width > 0, HAS_BIAS=bias is not None, ACCUMULATOR=accumulator(out), LOWEST=keys.lowest,
            BLOCK=cut.block, LIST_TILE=cut.list_tile, TILE=cut.select_tile,
            num_warps=warps(words), enable_fp_fusion=True,
        )  # fmt: skip


def topk_of_rows(scores: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of scores [B, n] + bias, float32 or float64.

    The rules of `exact_topk.py`; features ascending. Where k or n is too large for one program, that
    module does the work.

    Raises:
        ValueError: not 1 <= k <= n.
    """
    batch, n = scores.shape
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    cut = plan(n, k)
    if not cut.feasible or batch == 0:
        biased = scores if bias is None else scores + bias
        return topk_of_columns(biased.t(), k)
    scores = scores.contiguous()
    keys = keys_of(scores.dtype)
    maxima = torch.empty(batch, cut.blocks, dtype=keys.dtype, device=scores.device)
    tile = max(1, min(1024 // cut.block, cut.list_tile))
    pieces = -(-cut.blocks // tile)
    with on_device(scores):
        for first in range(0, batch, 65535):  # the second axis of a grid ends there
            part = slice(first, first + 65535)
            _maxima_kernel[(pieces, maxima[part].shape[0])](
                scores[part], scores if bias is None else bias, maxima[part], n, cut.blocks,
                HAS_BIAS=bias is not None, LOWEST=keys.lowest, BLOCK=cut.block, TILE=tile,
                enable_fp_fusion=True,
            )  # fmt: skip
    index = torch.empty(batch, k, dtype=torch.int64, device=scores.device)
    value = torch.empty(batch, k, dtype=scores.dtype, device=scores.device)
    select(maxima, cut, scores, bias, index, value)
    return index, value
