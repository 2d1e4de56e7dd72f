"""Block orthogonal matching pursuit on a CPU with numba, by rounds of a search and of one compiled loop.

A search is the dictionary's own top-k, which need not keep [B, n]. Held columns and what depends on them
score rounding only, so that a search seldom meets them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae.kernels import threads
from expander_sae.kernels.exact_topk import in_order
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.model.joined_dictionary import JoinedDictionary

_FACTOR_BYTES = 1 << 24
"""Of the factors of all samples that are at work: about what the caches hold."""

_LEAST = 4 * 64
"""Samples at work, all the same: a search takes 64 a tile."""

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

    Time, with w entries a column: O(B·k/block·n·w) to search, O(B·k²·(k + w)) to refit. Memory: k²
    numbers of some hundred samples, and the entries once more.
    """
    norms = dictionary.norms()
    unit = dictionary.changed(_at_unit_norm)
    index = torch.full((len(target), k), -1, dtype=torch.int64)
    value = target.new_zeros(len(target), k)
    size = max(_LEAST, _FACTOR_BYTES // (k * k * target.element_size()))
    for start in range(0, len(target), size):
        part = slice(start, start + size)
        _pursue(unit, target[part], limit[part], block, index[part], value[part])
    held = norms[index.clamp(min=0)]
    return SparseCode(index, torch.where(held > 0, value / held, 0))


def _parts(dictionary: Dictionary) -> tuple[Dictionary, ...]:
    return dictionary.parts if isinstance(dictionary, JoinedDictionary) else (dictionary,)


def _at_unit_norm(entries: Tensor) -> Tensor:
    entries = entries.detach()
    norms = entries.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, entries / norms, 0)


def _pursue(
    unit: Dictionary, target: Tensor, limit: Tensor, block: int, index: Tensor, value: Tensor
) -> None:
    from expander_sae.kernels import numba_rounds  # compiled where it is used

    batch, k = index.shape
    residual = target.clone(memory_format=torch.contiguous_format)
    factor, held = target.new_empty(batch, k, k), torch.zeros(batch, dtype=torch.int64)
    going, tried = torch.ones(batch, dtype=torch.bool), torch.empty(batch, 0, dtype=torch.int64)
    dependence = target.new_tensor(1e-12 if target.dtype == torch.float64 else 1e-6).numpy()[()]
    *dense, tail = _parts(unit)
    core = torch.cat([target.new_empty(0, unit.m), *(part.columns(torch.arange(part.n)) for part in dense)])
    assert isinstance(tail, SparseDictionary)
    given = tuple(part.contiguous().numpy() for part in (core, tail.values, tail.rows))
    state = tuple(part.numpy() for part in (index, value, residual, factor, held, going))
    while tried.shape[1] < unit.n:
        chosen, score = _best_untried(unit, residual, min(block, unit.n - tried.shape[1]), tried)
        tried = torch.cat([tried, chosen], dim=1)
        found = chosen.contiguous().numpy(), score.contiguous().numpy(), limit.numpy(), dependence
        threads.run(numba_rounds.take_up, threads.even_bounds(batch), *given, *found, *state)
        if not bool(going.any()):
            break


def _best_untried(unit: Dictionary, residual: Tensor, count: int, tried: Tensor) -> tuple[Tensor, Tensor]:
    """(columns, scores), each [B, count], of the largest scores among the columns that were not tried."""
    best = unit.correlate_topk(residual, None, count)
    column, score = in_order(best.index, best.value)
    again = (column[:, :, None] == tried[:, None, :]).flatten(1).any(dim=1).nonzero()[:, 0]
    if len(again):
        best = unit.correlate_topk(residual[again], None, count + tried.shape[1])
        known = (best.index[:, :, None] == tried[again, None, :]).any(dim=2)
        names, scores = in_order(best.index, best.value.masked_fill(known, -torch.inf))
        column[again], score[again] = names[:, :count], scores[:, :count]
    return column, score
