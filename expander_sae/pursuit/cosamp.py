"""Compressive sampling matching pursuit on any dictionary.

D. Needell and J. A. Tropp (2009), CoSaMP: iterative signal recovery from incomplete and inaccurate
samples, Appl. Comput. Harmon. Anal. 26(3), 301–321.
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
    worked_on,
)

_ON_CPU = 128
"""Samples at once on a CPU."""

_STAGNATION = 1e-6
_REFINEMENTS = 4


@torch.no_grad()
def cosamp(
    dictionary: Dictionary,
    target: Tensor,
    k: int,
    selection: str = "signed",
    iterations: int = 50,
    tolerance: float = 0.0,
    patience: int = 5,
) -> SparseCode:
    """Codes of target [B, m] with at most k columns. From x = 0, each iteration

        Ω = the 2k best correlations with h − Wx,  T = Ω ∪ supp(x),
        b = argmin ‖h − W_T b‖,                    x = H_k(b).

    CoSaMP need not descend: with 3k near m, or coherent columns, it wanders, often from a worse start to a
    better end. So the iterate with the smallest residual is returned, the empty code counting as the first:
    the residual never exceeds the target. The least squares go over the Gram matrix with a ridge and
    iterative refinement; of dependent columns they take the shortest solution, up to rounding.

    Args:
        selection: "signed": Ω and H_k take the largest positive entries; "absolute": the largest in size, as
            published.
        iterations: at most so many. A sample stops earlier where its support and its squared residual (to a
            millionth) repeat.
        tolerance: and where ‖residual‖ is at most `tolerance`·‖target‖, or rounding.
        patience: and after so many iterations in a row without a smaller residual.

    Returns:
        Places in falling order of entries, empty ones (index −1) at the end. A target that is zero or not
        finite gets an empty code.

    Raises:
        ValueError: arguments out of range.
    """

    def iterate(part: Tensor, code: SparseCode) -> SparseCode:
        return _iterate(dictionary, part, code, selection, iterations, tolerance, patience)

    # Three matrices [3k, 3k] in float64, of which two numbers make one.
    sizes = _ON_CPU, 6 * (3 * k) ** 2 + 8 * dictionary.m
    return in_batches(dictionary, target, k, selection, iterations, tolerance, sizes, iterate)


def _iterate(
    dictionary: Dictionary,
    target: Tensor,
    code: SparseCode,
    selection: str,
    iterations: int,
    tolerance: float,
    patience: int,
) -> SparseCode:
    index, value, k = code.index, code.value, code.index.shape[1]
    smallest = target.square().sum(1)
    limit = score_limit(target, tolerance).square()
    going = (smallest > limit) & smallest.isfinite()
    held, residual, previous = index.clone(), target.clone(), smallest.clone()
    waited = torch.zeros_like(going, dtype=torch.int64)
    for iteration in range(iterations):
        active = worked_on(going)
        if active is None or (going.is_cuda and looks(iteration, going.device) and not bool(going.any())):
            break
        goal, before, was = target[active], held[active], previous[active]
        proxy = largest_correlations(dictionary, residual[active], 2 * k, selection)
        places, _ = merge(before, proxy.index)
        found = keep_largest(SparseCode(places, least_squares(dictionary, goal, places)), k, selection)
        left = goal - dictionary.synthesize(found)
        squared = left.square().sum(1)
        lower = going[active] & (squared < smallest[active])
        index[active] = torch.where(lower[:, None], found.index, index[active])
        value[active] = torch.where(lower[:, None], found.value, value[active])
        smallest[active] = torch.where(lower, squared, smallest[active])
        repeats = (found.index == before).all(1) & ((squared - was).abs() <= _STAGNATION * was)
        waited[active] = torch.where(lower, 0, waited[active] + 1)
        going[active] = going[active] & ~repeats & (squared > limit[active]) & (waited[active] < patience)
        held[active], residual[active], previous[active] = found.index, left, squared
    return SparseCode(index, value)


def least_squares(dictionary: Dictionary, target: Tensor, index: Tensor) -> Tensor:
    """argmin_b ‖target − W_T b‖ for T = index [B, c], no column twice: [B, c]; 0 in empty places.

    b += (G + λI)⁻¹ W_Tᵀ(target − W_T b) from b = 0, four times: along a singular value s the relative error
    is (λ/(λ + s²))⁴. λ = √eps·max diag(G) is far above the rounding of G, and keeps that of the right side
    from filling the null space. Zero where the numbers are not finite.
    """
    gram = dictionary.gram(index).double()
    diagonal = gram.diagonal(dim1=1, dim2=2)
    ridge = torch.finfo(target.dtype).eps ** 0.5 * diagonal.amax(dim=1, keepdim=True)
    diagonal += ridge + (index < 0)
    # A column of zeros, too, must leave a positive diagonal.
    diagonal.clamp_(min=torch.finfo(target.dtype).tiny)
    factor, failed = torch.linalg.cholesky_ex(gram)

    solution, left = torch.zeros_like(index, dtype=target.dtype), target
    for _ in range(_REFINEMENTS):
        right = dictionary.correlate_at(left, index).double()
        solution += torch.cholesky_solve(right[:, :, None], factor)[:, :, 0].to(target.dtype)
        left = target - dictionary.synthesize(SparseCode(index, solution))
    solution.masked_fill_((index < 0) | (failed[:, None] > 0), 0)
    return solution.nan_to_num_(0.0, 0.0, 0.0)
