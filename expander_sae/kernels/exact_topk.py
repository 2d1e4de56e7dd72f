"""Exact top-k of every column of a score matrix, much faster than `torch.topk`.

A pyramid of block maxima (four scores a block) is climbed until few blocks are left, then
descended: of the children of the k + 1 best blocks, the k + 1 best go on. What a level leaves behind
cannot be among the k largest, unless it ties with the k-th: such samples are found by comparing
the least that went on with the k-th largest, and are sorted outright.

The k largest *signed* scores are chosen; among equal scores the lowest index wins; a NaN counts
as larger than every number (as in `torch.topk`), so divergence shows instead of vanishing. The
places come in no particular order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_BRANCHING = 4

_SCANNED = 768
"""Most scores of a sample that are gone through outright for the largest; with more the pyramid is faster."""


def _block_maxima(scores: Tensor) -> Tensor:
    """[n, B] -> [ceil(n / 4), B]; the last block may be shorter."""
    whole = scores.shape[0] // _BRANCHING
    blocks = scores[: whole * _BRANCHING].view(whole, _BRANCHING, scores.shape[1]).amax(1)
    if whole * _BRANCHING == scores.shape[0]:
        return blocks
    return torch.cat([blocks, scores[whole * _BRANCHING :].amax(0, keepdim=True)])


def _sorted_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns [n, B] by a stable sort: the meaning of this module."""
    value, index = scores.t().sort(dim=1, descending=True, stable=True)
    return index[:, :k].contiguous(), value[:, :k].contiguous()


def topk_of_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices int64 [B, k] and values [B, k] of the k largest scores of each column of [n, B].

    Raises:
        ValueError: not 1 <= k <= n.
    """
    n, batch = scores.shape
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    if k == 1 and n <= _SCANNED:  # torch names the first of the largest, or of NaN
        value, index = scores.max(dim=0)
        return index[:, None], value[:, None]
    scores = scores.contiguous()
    levels = [scores]
    while levels[-1].shape[0] > 2 * _BRANCHING * k:
        levels.append(_block_maxima(levels[-1]))

    candidates = levels.pop().t().contiguous()
    # The largest score that was, or ties with one that was, left behind on the way down.
    left_behind = scores.new_full((batch,), -torch.inf)
    nodes: Tensor | None = None
    children = torch.arange(_BRANCHING, device=scores.device)
    while levels:
        best, place = candidates.topk(min(k + 1, candidates.shape[1]), dim=1, sorted=False)
        if best.shape[1] < candidates.shape[1]:
            left_behind = torch.maximum(left_behind, best.amin(1))
        chosen = place if nodes is None else nodes.gather(1, place)
        level = levels.pop()
        nodes = torch.add(children, chosen[:, :, None], alpha=_BRANCHING).flatten(1)
        last = level.shape[0] - 1
        if last % _BRANCHING == _BRANCHING - 1:  # no block is short
            candidates = level.t().gather(1, nodes)
        else:
            beyond = nodes > last
            nodes = nodes.clamp_(max=last)
            candidates = level.t().gather(1, nodes).masked_fill_(beyond, -torch.inf)

    best, place = candidates.topk(min(k + 1, candidates.shape[1]), dim=1)
    chosen = place if nodes is None else nodes.gather(1, place)
    index, value = chosen[:, :k].contiguous(), best[:, :k].contiguous()
    if k == n:
        return index, value
    left_behind = torch.maximum(left_behind, best[:, k])
    ambiguous = ~(left_behind < value[:, k - 1])  # also where either is NaN
    if bool(ambiguous.any()):
        again = ambiguous.nonzero()[:, 0]
        index[again], value[again] = _sorted_topk(scores[:, again], k)
    return index, value


def merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k largest of (index, value), [B, a] each, and another list of each sample with other indices.

    Largest first, the lowest index among equals; fewer where there are no k.
    """
    index, value = in_order(*(torch.cat(pair, dim=1) for pair in zip(first, second, strict=True)))
    return index[:, :k].contiguous(), value[:, :k].contiguous()


def in_order(index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The same places [B, a] of each sample, the largest value first, and the lowest index among equals."""
    index, order = index.sort(dim=1)
    value, place = value.gather(1, order).sort(dim=1, descending=True, stable=True)
    return index.gather(1, place), value


def topk_of_pieces(scores_of: Callable[[slice], Tensor], n: int, k: int, size: int) -> tuple[Tensor, Tensor]:
    """`topk_of_columns` of scores [n, B] of which at most `size` rows are there at a time.

    Args:
        scores_of: from a slice of range(n) to the scores [rows, B] of it.
    """
    found: tuple[Tensor, Tensor] | None = None
    for start in range(0, n, size):
        end = min(start + size, n)
        index, value = topk_of_columns(scores_of(slice(start, end)), min(k, end - start))
        piece = index + start, value
        found = piece if found is None else merged(found, piece, k)
    assert found is not None
    return found
