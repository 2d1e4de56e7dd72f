"""Certificates against brute force on matrices small enough to enumerate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.errors import UserError
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model.dictionary import SparseDictionary
from expander_sae.pursuit.omp import omp
from expander_sae.rng import torch_generator
from expander_sae.theory import certificates


def make(
    m: int, n: int, d: int, seed: int = 0, flat: bool = False
) -> tuple[Mask, SparseDictionary, torch.Tensor]:
    mask = MaskRecipe("expander", m, n, d, seed).generate()
    values = torch.randn(n, d, dtype=torch.float64, generator=torch_generator(seed, "values"))
    columns = unit_columns(values.sign() if flat else values)
    dictionary = SparseDictionary(columns, torch.from_numpy(mask.rows), m, "torch")
    return mask, dictionary, dictionary.columns(torch.arange(n)).T


def test_flatness_is_one_for_signs_and_root_d_for_a_spike() -> None:
    _, flat, _ = make(16, 32, 4, flat=True)
    torch.testing.assert_close(certificates.flatness(flat.values), torch.ones(32, dtype=torch.float64))
    spike = torch.tensor([[0.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    assert certificates.flatness(spike).item() == pytest.approx(2.0)
    assert certificates.flatness(torch.zeros(1, 4)).item() == 0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_cumulative_coherence_equals_brute_force(seed: int, s: int) -> None:
    _, dictionary, w = make(8, 9, 3, seed)
    overlap = (w.T @ w).abs().numpy()
    expected = max(
        sum(overlap[i, j] for i in chosen)
        for j in range(9)
        for chosen in itertools.combinations([i for i in range(9) if i != j], s)
    )
    assert certificates.cumulative_coherence(dictionary, [s], block=4)[s] == pytest.approx(
        expected, rel=1e-12
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4))
def test_searches_never_exceed_the_truth_and_the_bounds_hold(seed: int, s: int, d: int) -> None:
    mask, dictionary, _ = make(8, 10, d, seed)
    exact = certificates.exact_expansion_deficit(mask, s)
    bound = certificates.expansion_deficit(mask, s, seed)
    assert bound.value <= exact + 1e-12
    if bound.columns.size:
        assert len(set(bound.columns.tolist())) == s
        assert certificates.deficit(mask, bound.columns) == bound.value
    # The paper's bound on cumulative coherence, with the exact deficit.
    beta = float(certificates.flatness(dictionary.values).max())
    if s >= 2:
        coherence = certificates.cumulative_coherence(dictionary, [s - 1])[s - 1]
        assert coherence <= beta**2 * exact * s + 1e-9


def test_swaps_find_what_greedy_misses() -> None:
    """Where the truth can be enumerated, the searches together find it on most masks."""
    hits = 0
    for seed in range(20):
        mask, _, _ = make(12, 14, 3, seed)
        exact = certificates.exact_expansion_deficit(mask, 4)
        hits += certificates.expansion_deficit(mask, 4, seed).value >= exact - 1e-12
    assert hits >= 16


def test_counting_bound_and_conditions() -> None:
    assert certificates.counting_bound(512, 50, 128) == pytest.approx(1 - 512 / 6400)
    assert certificates.counting_bound(512, 7, 10) == 0
    assert certificates.identifiability(2.0, 0.5) == pytest.approx(4.0)
    assert certificates.omp_condition(1.0, 0.01, 4) == pytest.approx(0.09)


def test_restricted_singular_values_are_those_of_the_submatrix() -> None:
    _, dictionary, w = make(12, 40, 4)
    index = torch.tensor([[0, 5, 9], [1, 2, 3]])
    got = certificates.restricted_singular_values(dictionary, index)
    for row, support in zip(got, index, strict=True):
        expected = torch.linalg.svdvals(w[:, support]).flip(0)
        torch.testing.assert_close(row, expected, rtol=1e-7, atol=1e-7)


def test_a_positive_margin_means_omp_recovers() -> None:
    _, dictionary, w = make(64, 80, 8)
    supports = torch.stack(
        [torch.randperm(80, generator=torch_generator(i, "support"))[:3] for i in range(40)]
    )
    margins = certificates.recovery_margin(dictionary, supports)
    for row, margin in zip(supports, margins, strict=True):
        outside = [j for j in range(80) if j not in set(row.tolist())]
        expected = 1 - torch.linalg.pinv(w[:, row]).mm(w[:, outside]).abs().sum(0).max()
        assert margin == pytest.approx(float(expected), abs=1e-9)
    sure = supports[margins > 0]
    assert len(sure) > 5
    coefficients = torch.randn(sure.shape, dtype=torch.float64, generator=torch_generator(0, "coefficients"))
    target = torch.einsum("bk,mbk->bm", coefficients, w[:, sure])
    found = omp(dictionary, target, 3, selection="absolute").index
    assert torch.equal(found.sort(dim=1).values, sure.sort(dim=1).values)


def test_dependent_supports_have_no_margin() -> None:
    _, dictionary, _ = make(4, 12, 2)
    assert certificates.recovery_margin(dictionary, torch.arange(6)[None]).item() == -np.inf


def test_impossible_questions_are_refused() -> None:
    mask, dictionary, _ = make(64, 512, 7)
    with pytest.raises(UserError, match="sets of 5 columns"):
        certificates.exact_expansion_deficit(mask, 5)
    with pytest.raises(UserError, match="s: found 513"):
        certificates.expansion_deficit(mask, 513)
    with pytest.raises(UserError, match="sizes"):
        certificates.cumulative_coherence(dictionary, [512])
