"""Normalised iterative hard thresholding on any dictionary.

T. Blumensath and M. E. Davies (2010), Normalized iterative hard thresholding: guaranteed stability
and performance, IEEE J. Sel. Top. Signal Process. 4(2), 298–309.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae.model.dictionary import Dictionary, SparseCode
from expander_sae.pursuit.block_omp import score_limit
from expander_sae.pursuit.hard_threshold import (
    in_batches,
    keep_largest,
    largest_correlations,
    looks,
    merge,
    score,
    worked_on,
)

_ON_CPU = 1024
"""Samples at once on a CPU."""

_SLACK = 0.01
"""c of the line search: a step that changes the support is at most (1 − c)‖Δx‖²/‖WΔx‖²."""
_HALVINGS = 60


@torch.no_grad()
def niht(
    dictionary: Dictionary,
    target: Tensor,
    k: int,
    selection: str = "signed",
    iterations: int = 50,
    tolerance: float = 0.0,
    stagnation: float = 1e-6,
) -> SparseCode:
    """Codes of target [B, m] with at most k columns: x ← H_k(x + μ Wᵀ(h − Wx)), from x = 0.

    With g = Wᵀ(h − Wx) and Γ the support of x (of H_k(g) where x is empty or g vanishes on it), the step
    μ = ‖g_Γ‖²/‖W_Γ g_Γ‖² is optimal if Γ stays; where Γ changes, μ is halved until
    μ ≤ (1 − c)‖Δx‖²/‖WΔx‖², c = 0.01, which makes the residual fall. Only the support and the 2k best
    correlations can hold entries of H_k, so a step costs one `correlate_topk` and O(B·3k) beside it.

    Columns should have comparable norms: entries are compared as they are.

    Args:
        selection: "signed": H_k keeps the k largest positive entries, the projection on non-negative k-sparse
            codes; "absolute": the k largest in size, as published.
        iterations: at most so many steps.
        tolerance: a sample stops where ‖residual‖ is at most `tolerance`·‖target‖, or rounding.
        stagnation: and where a step lowers its squared residual by no more than this share.

    Returns:
        Places in falling order of entries, empty ones (index −1) at the end. A target that is zero or not
        finite gets an empty code.

    Raises:
        ValueError: arguments out of range.
    """

    def iterate(part: Tensor, code: SparseCode) -> SparseCode:
        return _iterate(dictionary, part, code, selection, iterations, tolerance, stagnation)

    sizes = _ON_CPU, 8 * dictionary.m + 64 * k
    return in_batches(dictionary, target, k, selection, iterations, tolerance, sizes, iterate)


def _iterate(
    dictionary: Dictionary,
    target: Tensor,
    code: SparseCode,
    selection: str,
    iterations: int,
    tolerance: float,
    stagnation: float,
) -> SparseCode:
    index, value, k = code.index, code.value, code.index.shape[1]
    residual = target.clone()
    squared = residual.square().sum(1)
    limit = score_limit(target, tolerance)
    going = (squared > limit.square()) & squared.isfinite()
    for iteration in range(iterations):
        active = worked_on(going)
        if active is None or (going.is_cuda and looks(iteration, going.device) and not bool(going.any())):
            break
        before = SparseCode(index[active], value[active])
        after, valid = _step(dictionary, before, residual[active], k, selection, limit[active])
        left = target[active] - dictionary.synthesize(after)
        now = left.square().sum(1)
        fell = going[active] & valid & (now <= squared[active])
        progress = fell & (squared[active] - now > stagnation * squared[active])
        going[active] = progress & (now > limit[active].square())
        for held, new in ((index, after.index), (value, after.value), (residual, left)):
            held[active] = torch.where(fell[:, None], new, held[active])
        squared[active] = torch.where(fell, now, squared[active])
    return SparseCode(index, value)


def _step(
    dictionary: Dictionary, code: SparseCode, residual: Tensor, k: int, selection: str, limit: Tensor
) -> tuple[SparseCode, Tensor]:
    """(next code, bool [B]: whether the line search found a step)."""
    best = largest_correlations(dictionary, residual, 2 * k, selection)
    slope = dictionary.correlate_at(residual, code.index)
    first = keep_largest(best, k, selection)
    flat = slope.norm(dim=1, keepdim=True) <= limit[:, None]
    direction = SparseCode(_padded(code.index, first.index, flat), _padded(slope, first.value, flat))
    image = dictionary.synthesize(direction).square().sum(1)
    step = direction.value.square().sum(1) / image
    valid = (image > 0) & step.isfinite()
    step = torch.where(valid, step, 0)

    places, order = merge(code.index, best.index)
    x = torch.cat([code.value, torch.zeros_like(best.value)], dim=1).gather(1, order)
    x.masked_fill_(places < 0, 0)
    gradient = torch.cat([slope, best.value], dim=1).gather(1, order).masked_fill_(places < 0, 0)
    held = (order < code.index.shape[1]) & (places >= 0)
    for halving in range(_HALVINGS):
        moved = x + step[:, None] * gradient
        kept = _kept(places, moved, k, selection)
        change = torch.where(kept, moved, 0) - x
        length = change.square().sum(1)
        stretch = dictionary.synthesize(SparseCode(places, change)).square().sum(1)
        right = (kept == held).all(1) | (step * stretch <= (1 - _SLACK) * length)
        if looks(halving, residual.device) and bool((right | ~valid).all()):
            break
        step = torch.where(right, step, step / 2)
    return keep_largest(SparseCode(places, moved), k, selection), valid & right


def _padded(ours: Tensor, theirs: Tensor, choose_theirs: Tensor) -> Tensor:
    """Row-wise choice between [B, k] and [B, at most k]."""
    fill = -1 if theirs.dtype == torch.int64 else 0
    theirs = torch.nn.functional.pad(theirs, (0, ours.shape[1] - theirs.shape[1]), value=fill)
    return torch.where(choose_theirs, theirs, ours)


def _kept(places: Tensor, value: Tensor, k: int, selection: str) -> Tensor:
    """bool [B, c]: which entries `keep_largest` keeps."""
    ranked = score(value, selection).masked_fill(places < 0, -torch.inf)
    best, order = ranked.sort(dim=1, descending=True, stable=True)
    return torch.zeros_like(places, dtype=torch.bool).scatter_(1, order[:, :k], best[:, :k] > 0)
