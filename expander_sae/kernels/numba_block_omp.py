"""Orthogonal matching pursuit of several columns a round on a sparse dictionary, on a CPU with numba.

A round scores all columns by the encoder's kernel, which keeps no [B, n], and takes up the best of them in a
compiled loop. Held columns and what depends on them score rounding only, so that a search seldom meets them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae.kernels import numba_cpu, numba_rounds, threads
from expander_sae.kernels.exact_topk import in_order

_FACTOR_BYTES = 1 << 24
"""Of the factors of all samples that are at work: about what the caches hold."""

_LEAST = 4 * 64
"""Samples at work, all the same: a scoring takes 64 a tile."""


def block_omp(
    values: Tensor, rows: Tensor, target: Tensor, limit: Tensor, k: int, block: int
) -> tuple[Tensor, Tensor]:
    """(index int64 [B, k], value [B, k]) of target [B, m]; values and rows [n, w]: unit (or zero) columns.

    limit [B]: the score at or under which a sample stops. Meaning as in `pursuit.block_omp`, signed scores.
    Time: O(B·k/block·n·w) to score, O(B·k²·(k + w)) to refit. Memory: k² numbers of some hundred samples.
    """
    index = torch.full((len(target), k), -1, dtype=torch.int64)
    value = target.new_zeros(len(target), k)
    size = max(_LEAST, _FACTOR_BYTES // (k * k * target.element_size()))
    for start in range(0, len(target), size):
        part = slice(start, start + size)
        _pursue(values, rows, target[part], limit[part], block, index[part], value[part])
    return index, value


def _pursue(
    values: Tensor, rows: Tensor, target: Tensor, limit: Tensor, block: int, index: Tensor, value: Tensor
) -> None:
    (batch, k), n = index.shape, len(rows)
    residual = target.clone(memory_format=torch.contiguous_format)
    factor, held = target.new_empty(batch, k, k), torch.zeros(batch, dtype=torch.int64)
    going, tried = torch.ones(batch, dtype=torch.bool), torch.empty(batch, 0, dtype=torch.int64)
    dependence = values.new_tensor(1e-12 if values.dtype == torch.float64 else 1e-6).numpy()[()]
    columns = values.detach().contiguous().numpy(), rows.contiguous().numpy()
    state = tuple(part.numpy() for part in (index, value, residual, factor, held, going))
    while tried.shape[1] < n:
        chosen, score = _best_untried(values, rows, residual, min(block, n - tried.shape[1]), tried)
        tried = torch.cat([tried, chosen], dim=1)
        found = chosen.contiguous().numpy(), score.contiguous().numpy(), limit.numpy(), dependence
        threads.run(numba_rounds.take_up, threads.even_bounds(batch), *columns, *found, *state)
        if not bool(going.any()):
            break


def _best_untried(
    values: Tensor, rows: Tensor, residual: Tensor, count: int, tried: Tensor
) -> tuple[Tensor, Tensor]:
    """(columns, scores), each [B, count], of the largest scores among the columns that were not tried."""
    column, score = in_order(*numba_cpu.correlate_topk(values, rows, residual, None, count))
    again = (column[:, :, None] == tried[:, None, :]).flatten(1).any(dim=1).nonzero()[:, 0]
    if len(again):
        more = count + tried.shape[1]
        names, scores = numba_cpu.correlate_topk(values, rows, residual[again], None, more)
        scores[(names[:, :, None] == tried[again, None, :]).any(dim=2)] = -torch.inf
        names, scores = in_order(names, scores)
        column[again], score[again] = names[:, :count], scores[:, :count]
    return column, score
