"""Orthogonal matching pursuit that takes several columns a round, on any dictionary.

Y. C. Pati, R. Rezaiifar and P. S. Krishnaprasad (1993) for one column a round; block of k: one shot.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from expander_sae.kernels import device_omp
from expander_sae.kernels.exact_topk import in_order, merged, topk_of_columns
from expander_sae.machine.batch_sizes import samples_at_once
from expander_sae.machine.piece_sizes import STORED_SCORES
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary, joined
from expander_sae.pursuit import compiled_rounds
from expander_sae.pursuit.active_set import ActiveSet

SELECTIONS = ("signed", "absolute")
_ON_CPU = 256
"""Samples at once on a CPU."""

_FEATURES = STORED_SCORES // _ON_CPU
"""Features at once."""

_GRAM_LIMIT = 8192
"""Most features whose n² products are held: 256 MB in float32."""


def check_arguments(dictionary: Dictionary, target: Tensor, k: int, selection: str, tolerance: float) -> None:
    """Raise `ValueError` for arguments that no pursuit can serve."""
    if selection not in SELECTIONS:
        raise ValueError(f"selection: found {selection!r}, expected one of {', '.join(SELECTIONS)}")
    if not 1 <= k <= dictionary.n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {dictionary.n}")
    if target.ndim != 2 or target.shape[1] != dictionary.m:
        raise ValueError(f"target: found shape {tuple(target.shape)}, expected [B, {dictionary.m}]")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance = {tolerance}: expected 0 <= tolerance < 1")


def score_limit(target: Tensor, tolerance: float) -> Tensor:
    """[B]: the score at or under which a sample stops: `tolerance`, or rounding, times ‖target‖."""
    return target.norm(dim=1) * max(tolerance, 16 * torch.finfo(target.dtype).eps)


def inverse_norms(dictionary: Dictionary) -> Tensor:
    """[n]: 1/‖w_j‖, and 0 for a column of zeros, which therefore never scores."""
    norms = dictionary.norms()
    return torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))


@torch.no_grad()
def block_omp(
    dictionary: Dictionary,
    target: Tensor,
    k: int,
    block: int = 1,
    selection: str = "signed",
    tolerance: float = 0.0,
) -> SparseCode:
    """Codes of target [B, m] with at most k columns, `block` of them chosen from each residual.

    A round takes the columns with the largest scores ⟨w_j, r⟩/‖w_j‖ (their sizes, if `selection` is
    "absolute"), the lowest index among equals, and refits all coefficients by least squares. A column that
    depends on those held (ℓ² under 1e-6 of its squared norm, 1e-12 in float64) is passed over for good. A
    sample stops early where its best score is at most `tolerance`·‖target‖, or where it is rounding.

    Returns:
        Places in the order of choice; early stops leave index -1 and value 0 at the end.

    Raises:
        ValueError: k, block, selection or tolerance out of range.
    """
    check_arguments(dictionary, target, k, selection, tolerance)
    if not 1 <= block <= k:
        raise ValueError(f"block = {block}: expected 1 <= block <= k = {k}")
    limit, (dictionary, target) = score_limit(target, tolerance), dictionary.reduced(target)
    return pursued(dictionary, target, limit, k, block, selection)


def pursued(
    dictionary: Dictionary, target: Tensor, limit: Tensor, k: int, block: int, selection: str
) -> SparseCode:
    """`block_omp` of checked arguments; a sample stops where its best score is at most its `limit` [B]."""
    scale = inverse_norms(dictionary)
    if isinstance(dictionary, SparseDictionary | DenseDictionary) and device_omp.serves(
        dictionary.backend, dictionary.entries
    ):
        unit = dictionary.entries.detach() * scale[:, None]
        how = (limit, k, block, selection == "absolute")
        index, value = device_omp.omp(dictionary.backend, unit, dictionary.rows, target, *how)
        return SparseCode(index, value * scale[index.clamp(min=0)])
    if compiled_rounds.serves(dictionary, selection):
        return compiled_rounds.block_omp(dictionary, target, limit, k, block)
    gram = _whole_gram(dictionary, target.shape[0], k)
    pursue = partial(_pursue, dictionary, scale, gram, k, block, selection)
    numbers = k * (k + 4) + 4 * dictionary.m + 2 * dictionary.n
    batch = samples_at_once(target.device, target.element_size() * numbers, _ON_CPU)
    return joined(map(pursue, target.split(batch), limit.split(batch)))


def _whole_gram(dictionary: Dictionary, batch: int, k: int) -> Tensor | None:
    """WᵀW of a dense dictionary, where one product costs less than gathering k columns a step."""
    if not isinstance(dictionary, DenseDictionary) or dictionary.n > _GRAM_LIMIT:
        return None
    weight = dictionary.weight.detach()
    return None if batch * k**2 * 64 < dictionary.n**2 else weight @ weight.t()


def _pursue(
    dictionary: Dictionary,
    scale: Tensor,
    gram: Tensor | None,
    k: int,
    block: int,
    selection: str,
    target: Tensor,
    limit: Tensor,
) -> SparseCode:
    active = ActiveSet(dictionary, target, k, gram)
    going = torch.ones(target.shape[0], dtype=torch.bool, device=target.device)
    tried = torch.zeros(target.shape[0], 0, dtype=torch.int64, device=target.device)
    pieces = dictionary.pieces(_FEATURES)
    while tried.shape[1] < dictionary.n:
        residual = active.residual() if tried.shape[1] else target
        count = min(block, dictionary.n - tried.shape[1])
        column, best = _best_untried(pieces, scale, residual, selection == "absolute", tried, count)
        tried = torch.cat([tried, column], dim=1)
        for place in range(column.shape[1]):
            active.append(column[:, place], going & (best[:, place] > limit))
        going &= (best[:, 0] > limit) & (active.held < k)
        # A look is free on a CPU. A GPU would wait for it, and ⌈k / block⌉ rounds are wanted in any case.
        if (not target.is_cuda or tried.shape[1] >= k) and not bool(going.any()):
            break
    return active.code()


def _best_untried(
    pieces: list[Dictionary], scale: Tensor, residual: Tensor, absolute: bool, tried: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """(columns, scores), each [B, count], of the largest scores among the columns that were not tried.

    Scores of [B, _FEATURES] are there at a time, whatever the number of features.
    """
    found: tuple[Tensor, Tensor] | None = None
    start = 0
    for piece in pieces:
        scores = piece.correlate(residual)
        scores *= scale[start : start + piece.n]
        if absolute:
            scores.abs_()
        sample, place = ((tried >= start) & (tried < start + piece.n)).nonzero(as_tuple=True)
        scores[sample, tried[sample, place] - start] = -torch.inf
        column, best = _largest(scores, min(count, piece.n))
        largest = column + start, best
        found = largest if found is None else merged(found, largest, count)
        start += piece.n
    assert found is not None
    return found


def _largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(columns, values), each [B, count], of the largest scores, largest first, the lowest among equals."""
    if count == 1:
        column = scores.argmax(dim=1, keepdim=True)
        return column, scores.gather(1, column)
    column, value = topk_of_columns(scores.t(), count)
    return in_order(column, value)
