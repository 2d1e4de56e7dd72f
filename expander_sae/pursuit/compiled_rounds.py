"""Block orthogonal matching pursuit on a CPU with numba, by rounds of a search and of one compiled loop.

A search is the dictionary's own top-k, which need not keep [B, n]. Held columns and what depends on them
score rounding only, so that a search seldom meets them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from expander_sae.kernels import threads
from expander_sae.kernels.exact_topk import in_order
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.model.joined_dictionary import JoinedDictionary
from expander_sae.pursuit.active_set import dependence_limit

_WORKING_BYTES = 1 << 24
"""Of what all samples at work have beside their codes: about what the caches hold."""

_LEAST = 4 * 64
"""Samples at work, all the same: a search takes 64 a tile."""

_LISTED = 1 << 22
"""Most columns that are listed at a time where a search meets columns that were tried."""

_COMPARED = 1 << 20
"""Most pairs of columns that are compared outright; more are looked up in order."""

_BACKEND = "expander_sae.kernels.numba_cpu"


def serves(dictionary: Dictionary, selection: str) -> bool:
    """Whether this takes it: signed scores of sparse columns of numba, or of dense ones and then such."""
    *core, tail = _parts(dictionary)
    return (
        selection == "signed"
        and isinstance(tail, SparseDictionary)
        and tail.backend.__name__ == _BACKEND
        and all(isinstance(part, DenseDictionary) for part in core)
    )


def block_omp(dictionary: Dictionary, target: Tensor, limit: Tensor, k: int, block: int) -> SparseCode:
    """`pursuit.block_omp` of checked arguments by signed scores; `limit` [B]: at or under it a sample stops.

    Time, with w entries a column: O(B·k/block·n·w) to search, O(B·k²·(k + w)) to refit. Memory: the entries
    once more, and k² + m numbers of some hundred samples.
    """
    norms = dictionary.norms()
    unit = dictionary.changed(_at_unit_norm)
    columns = _columns(unit)
    index = torch.full((len(target), k), -1, dtype=torch.int64)
    value = target.new_zeros(len(target), k)
    size = max(_LEAST, _WORKING_BYTES // ((k * k + 2 * target.shape[1]) * target.element_size()))
    for start in range(0, len(target), size):
        part = slice(start, start + size)
        _pursue(unit, columns, target[part], limit[part], block, index[part], value[part])
    held = norms[index.clamp(min=0)]
    return SparseCode(index, torch.where(held == 0, 0, value / held))


def _parts(dictionary: Dictionary) -> tuple[Dictionary, ...]:
    return dictionary.parts if isinstance(dictionary, JoinedDictionary) else (dictionary,)


def _at_unit_norm(entries: Tensor) -> Tensor:
    """A column of zeros stays one, and one of NaN too, so that divergence shows."""
    entries = entries.detach()
    norms = entries.norm(dim=1, keepdim=True)
    return torch.where(norms == 0, 0, entries / norms)


def _columns(unit: Dictionary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dense columns [c, m], values [n − c, w], rows [n − c, w]), c = 0 where there are none."""
    *dense, tail = _parts(unit)
    assert isinstance(tail, SparseDictionary)
    written = [part.weight for part in dense if isinstance(part, DenseDictionary)]
    core = written[0] if len(written) == 1 else torch.cat([tail.values.new_empty(0, unit.m), *written])
    return core.contiguous().numpy(), tail.values.contiguous().numpy(), tail.rows.contiguous().numpy()


def _pursue(
    unit: Dictionary,
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
    target: Tensor,
    limit: Tensor,
    block: int,
    index: Tensor,
    value: Tensor,
) -> None:
    from expander_sae.kernels import numba_rounds  # compiled where it is used

    batch, k = index.shape
    residual = target.clone(memory_format=torch.contiguous_format)
    factor, held = target.new_empty(batch, k, k), torch.zeros(batch, dtype=torch.int64)
    going, tried = torch.ones(batch, dtype=torch.bool), torch.empty(batch, 0, dtype=torch.int64)
    dependence = target.new_tensor(dependence_limit(target.dtype)).numpy()[()]
    state = tuple(part.numpy() for part in (index, value, residual, factor, held, going))
    while tried.shape[1] < unit.n and bool(going.any()):
        count = min(block, unit.n - tried.shape[1])
        if bool(going.all()):
            chosen, score = _best_untried(unit, residual, count, tried)
        else:  # what has stopped is not searched for: its best columns are the ones that it has tried
            at = going.nonzero()[:, 0]
            chosen = torch.full((batch, count), -1, dtype=torch.int64)
            score = target.new_full((batch, count), -torch.inf)
            chosen[at], score[at] = _best_untried(unit, residual[at], count, tried[at])
        tried = torch.cat([tried, chosen], dim=1)
        found = chosen.contiguous().numpy(), score.contiguous().numpy(), limit.numpy(), dependence
        threads.run(numba_rounds.take_up, threads.even_bounds(batch), *columns, *found, *state)


def _best_untried(unit: Dictionary, residual: Tensor, count: int, tried: Tensor) -> tuple[Tensor, Tensor]:
    """(columns, scores), each [B, count], of the largest scores among the columns that were not tried."""
    best = unit.correlate_topk(residual, None, count)
    column, score = in_order(best.index, best.value)
    again = _among(column, tried).any(dim=1).nonzero()[:, 0]
    # None is the rule, and `split` of none is one empty piece.
    for at in again.split(max(1, _LISTED // (count + tried.shape[1]))) if len(again) else ():
        best = unit.correlate_topk(residual[at], None, count + tried.shape[1])
        value = best.value.masked_fill(_among(best.index, tried[at]), -torch.inf)
        names, scores = in_order(best.index, value)
        column[at], score[at] = names[:, :count], scores[:, :count]
    return column, score


def _among(column: Tensor, tried: Tensor) -> Tensor:
    """bool [B, c]: whether column [B, c] is one of tried [B, t]."""
    if column.numel() * tried.shape[1] <= _COMPARED:
        return (column[:, :, None] == tried[:, None, :]).any(dim=2)
    tried = tried.sort(dim=1).values
    place = torch.searchsorted(tried, column).clamp(max=tried.shape[1] - 1)
    return tried.gather(1, place) == column
