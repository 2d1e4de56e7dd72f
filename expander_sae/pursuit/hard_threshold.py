"""What iterative thresholding needs: the best columns of a residual and the largest entries of a code.

`signed` keeps positive entries only, the largest first, as the encoder's top-k does on any realistic
sample; an entry at or below zero leaves its place empty. `absolute` goes by size, as in the literature.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from expander_sae.machine.batch_sizes import samples_at_once
from expander_sae.model.dictionary import Dictionary, SparseCode, joined
from expander_sae.pursuit.block_omp import check_arguments

Iterate = Callable[[Tensor, SparseCode], SparseCode]
"""(target [B, m], empty code [B, k]) -> code."""


def in_batches(
    dictionary: Dictionary,
    target: Tensor,
    k: int,
    selection: str,
    iterations: int,
    tolerance: float,
    sizes: tuple[int, int],
    iterate: Iterate,
) -> SparseCode:
    """Check the arguments, then `iterate` on some samples at a time, from empty codes.

    Args:
        sizes: samples at a time on a CPU; numbers that one takes, which say how many elsewhere.
    """
    check_arguments(dictionary, target, k, selection, tolerance)
    if iterations < 1:
        raise ValueError(f"iterations = {iterations}: expected at least 1")
    index, value = target.new_full((len(target), k), -1, dtype=torch.int64), target.new_zeros(len(target), k)
    batch = samples_at_once(target.device, sizes[1] * target.element_size(), sizes[0])
    parts = (tensor.split(batch) for tensor in (target, index, value))
    return joined(iterate(part, SparseCode(*empty)) for part, *empty in zip(*parts, strict=True))


def worked_on(going: Tensor) -> Tensor | slice | None:
    """The samples that a step works on: those going on a CPU, and none where there are none.

    Elsewhere all of them, since which ones are going only the device knows; the others are computed in vain.
    """
    if going.is_cuda:
        return slice(None)
    active = going.nonzero()[:, 0]
    return active if active.numel() else None


def looks(step: int, device: torch.device) -> bool:
    """Whether the host asks at this step, from 0, if a loop is done: of a GPU at powers of two only."""
    return device.type != "cuda" or step & (step - 1) == 0


def score(value: Tensor, selection: str) -> Tensor:
    """What entries are ranked by; an entry that may not be kept scores at most 0, or NaN."""
    return value if selection == "signed" else value.abs()


def largest_correlations(dictionary: Dictionary, residual: Tensor, count: int, selection: str) -> SparseCode:
    """Up to `count` columns with the largest ⟨w_j, r⟩ (or |⟨w_j, r⟩|) for residual [B, m], none of them 0.

    Never [B, n] here: the backend's own top-k serves, on r and on −r where sizes count.
    """
    count = min(count, dictionary.n)
    best = dictionary.correlate_topk(residual, None, count)
    index, value = torch.where(best.value > 0, best.index, -1), best.value.clamp(min=0)
    if selection == "absolute":
        worst = dictionary.correlate_topk(-residual, None, count)
        # The two lists share no column: one holds the positive correlations, the other the negative.
        index = torch.cat([index, torch.where(worst.value > 0, worst.index, -1)], dim=1)
        value = torch.cat([value, -worst.value.clamp(min=0)], dim=1)
        return keep_largest(SparseCode(index, value), count, selection)
    return SparseCode(index, value.masked_fill(index < 0, 0))


def keep_largest(code: SparseCode, k: int, selection: str) -> SparseCode:
    """H_k: the k largest entries of each sample, largest first, the earlier place among equals."""
    ranked = score(code.value, selection).masked_fill(code.index < 0, -torch.inf)
    best, order = ranked.sort(dim=1, descending=True, stable=True)
    kept, order = best[:, :k] > 0, order[:, :k]
    index = torch.where(kept, code.index.gather(1, order), -1)
    return SparseCode(index, torch.where(kept, code.value.gather(1, order), 0))


def merge(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Union of index [B, a] and [B, b]: (index [B, a + b], order), where order sorts their concatenation.

    Ascending, so that the lowest column wins a tie; empty places and second mentions are −1. Of two mentions
    the first one's place stays.
    """
    index, order = torch.cat([first, second], dim=1).sort(dim=1, stable=True)
    again = torch.zeros_like(index, dtype=torch.bool)
    again[:, 1:] = index[:, 1:] == index[:, :-1]
    return index.masked_fill(again, -1), order
