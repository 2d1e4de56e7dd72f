"""Certificates: what the mask and the columns guarantee about sparse codes, and what is left of it.

Expansion (arXiv 2607.01799, §4): a set S of columns has neighbourhood Γ(S), the rows that any of
them uses, and deficit ε(S) = 1 − |Γ(S)| / edges(S). ε(s) is the largest deficit of a set of at
most s columns. With flatness β (‖w_j‖∞ ≤ β/√d):

    μ₁(s) ≤ β² ε(s+1) (s+1)                       cumulative coherence
    2 β² ε(2k) < 1                                noiseless k-sparse codes are identifiable
    β² ε(k+1) (2k+1) < 1                          OMP (absolute selection) recovers every support

ε(s) is NP-hard; `expansion_deficit` brackets it from below, which is enough to refute a
certificate. Restricted singular values and recovery margins stay informative when these fail.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import STORED_SCORES
from expander_sae.masks.recipe import Mask
from expander_sae.model.dictionary import Dictionary
from expander_sae.rng import Integers
from expander_sae.theory.expansion_search import ExpansionSearch


def flatness(values: Tensor, degrees: np.ndarray | None = None) -> Tensor:
    """β_j = √d_j · ‖w_j‖∞ / ‖w_j‖ of columns given by values [n, w]: [n], each in [1, √d_j].

    Zero columns give 0.

    Args:
        degrees: true nonzeros d_j of each column where these differ from w.
    """
    width = values.shape[1]
    d = torch.full((values.shape[0],), width) if degrees is None else torch.from_numpy(degrees)
    norms = values.norm(dim=1)
    peak = values.abs().amax(dim=1)
    return torch.where(norms > 0, peak / norms.clamp(min=1e-300), 0) * d.to(values).sqrt()


def cumulative_coherence(dictionary: Dictionary, sizes: list[int], block: int = 512) -> dict[int, float]:
    """μ₁(s) = max_j max_{|S|=s, j∉S} Σ_{i∈S} |⟨w_i, w_j⟩| for each s, exactly. Time O(n²·d).

    Columns are taken as they are: for the paper's μ₁ they must have unit norm.

    Examples:
        >>> from expander_sae import DenseDictionary
        >>> cumulative_coherence(DenseDictionary(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])), [1, 2])
        {1: 0.5, 2: 1.0}
    """
    if not sizes or min(sizes) < 1 or max(sizes) >= dictionary.n:
        raise UserError(f"sizes: found {sizes}, expected values from 1 to n − 1 = {dictionary.n - 1}")
    worst = dict.fromkeys(sizes, 0.0)
    block = max(1, min(block, STORED_SCORES // dictionary.n))
    for start in range(0, dictionary.n, block):
        index = torch.arange(start, min(start + block, dictionary.n), device=dictionary.device)
        overlap = dictionary.correlate(dictionary.columns(index)).abs()
        overlap[torch.arange(len(index)), index] = 0
        sums = overlap.topk(max(sizes), dim=1).values.cumsum(dim=1).amax(dim=0)
        for s in sizes:
            worst[s] = max(worst[s], float(sums[s - 1]))
    return worst


def deficit(mask: Mask, columns: np.ndarray) -> float:
    """ε(S) = 1 − |Γ(S)| / edges(S) of the given distinct columns.

    Examples:
        >>> from expander_sae import MaskRecipe
        >>> mask = MaskRecipe("clustered", m=6, n=4, d=3, seed=0).generate()  # two blocks of rows
        >>> deficit(mask, np.arange(4))  # 12 entries on 6 rows
        0.5
    """
    rows = mask.rows[columns][mask.valid()[columns]]
    return 1.0 - len(np.unique(rows)) / rows.size


def counting_bound(m: int, d: int, s: int) -> float:
    """ε(s) ≥ max(0, 1 − m/(d·s)): s columns of degree d cannot reach more than m rows."""
    return max(0.0, 1.0 - m / (d * s))


def exact_expansion_deficit(mask: Mask, s: int, limit: int = 2_000_000) -> float:
    """ε(s) by enumeration of every set of at most s columns.

    Raises:
        UserError: there are more than `limit` sets of s columns.
    """
    count = 1
    for place in range(s):
        count = count * (mask.recipe.n - place) // (place + 1)
    if count > limit:
        raise UserError(f"s: {count} sets of {s} columns, expected at most {limit} to enumerate")
    return max(
        deficit(mask, np.array(chosen))
        for size in range(1, s + 1)
        for chosen in itertools.combinations(range(mask.recipe.n), size)
    )


@dataclass(frozen=True)
class ExpansionBound:
    """A lower bound on ε(s), the set that attains it (empty for the counting bound) and its method."""

    value: float
    method: str
    columns: np.ndarray


def expansion_deficit(mask: Mask, s: int, seed: int = 0, starts: int = 8, rounds: int = 3) -> ExpansionBound:
    """The best lower bound on ε(s) that the counting bound and four searches find.

    random sets, top-overlap sets, greedy sets, and greedy sets improved by swaps, each from
    `starts` columns drawn from the stream (seed, expansion). Time O(starts·(edges + s·n)) and the swaps.
    """
    n = mask.recipe.n
    if not 1 <= s <= n:
        raise UserError(f"s: found {s}, expected 1 to n = {n}")
    stream, search = Integers(seed, f"expansion/{s}"), ExpansionSearch(mask)
    regular = mask.regular
    found = [
        ExpansionBound(
            counting_bound(mask.recipe.m, mask.recipe.d, s) if regular else 0.0, "counting", np.array([])
        )
    ]
    firsts = stream.permutation(n)[:starts]
    greedy = [search.greedy(int(first), s) for first in firsts]
    best = max(greedy, key=lambda columns: deficit(mask, columns))
    candidates = [("random", stream.permutation(n)[:s]) for _ in range(starts)]
    candidates += [("top_overlap", search.top_overlap(int(first), s)) for first in firsts]
    candidates += [("greedy", columns) for columns in greedy]
    candidates.append(("swap", search.swap(best, rounds)))
    found += [ExpansionBound(deficit(mask, columns), method, columns) for method, columns in candidates]
    return max(found, key=lambda bound: bound.value)


def identifiability(beta: float, epsilon_2k: float) -> float:
    """2β²ε(2k): below 1, noiseless k-sparse codes are identifiable."""
    return 2 * beta**2 * epsilon_2k


def omp_condition(beta: float, epsilon_k1: float, k: int) -> float:
    """β²ε(k+1)(2k+1): below 1, OMP with absolute selection recovers every k-sparse support."""
    return beta**2 * epsilon_k1 * (2 * k + 1)


def restricted_singular_values(dictionary: Dictionary, index: Tensor) -> Tensor:
    """Singular values of W_S for each row S of index [B, k] (no empty places): [B, k], ascending.

    The smallest is how far the code of a sample is from being ambiguous on its own support; unlike
    ε it is about the sets that are used. Computed from the Gram matrix in float64.
    """
    eigenvalues = torch.linalg.eigvalsh(dictionary.gram(index).double())
    return eigenvalues.clamp(min=0).sqrt()


def recovery_margin(dictionary: Dictionary, index: Tensor) -> Tensor:
    """1 − max_{j∉S} ‖W_S⁺ w_j‖₁ for each row S of index [B, k]: [B].

    Positive: OMP recovers every exact code on S, whatever its coefficients (Tropp 2004, the exact
    recovery condition). −∞ where the columns of S are dependent. Time O(B·n·d·k).
    """
    margins = []
    for support in index:
        written = dictionary.columns(support).double()
        gram = written @ written.T
        if torch.linalg.matrix_rank(gram, hermitian=True) < len(support):
            margins.append(-torch.inf)
            continue
        pseudo = torch.linalg.solve(gram, written)
        solved = pseudo.to(dictionary.dtype)
        pieces = dictionary.pieces(STORED_SCORES // len(support))
        weight = torch.cat([piece.correlate(solved).double().abs().sum(dim=0) for piece in pieces])
        weight[support] = 0
        margins.append(1.0 - float(weight.max()))
    return torch.tensor(margins, dtype=torch.float64)
