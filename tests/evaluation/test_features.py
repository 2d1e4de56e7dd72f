"""Firing sets, novelty and entropy against Python sets and dense float64 matrices."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.evaluation import features as module
from expander_sae.evaluation.features import (
    FiringSets,
    best_cosine,
    best_jaccard,
    dead_fraction,
    random_sets,
    random_signs,
    token_entropy,
)
from expander_sae.model.dictionary import DenseDictionary, SparseCode, SparseDictionary
from expander_sae.model.subspace_dictionary import SubspaceDictionary


def random_code(batch: int, n: int, k: int, seed: int) -> SparseCode:
    """With empty places, zeros that do not count as firing, and features that never fire."""
    generator = np.random.default_rng(seed)
    index = np.stack([generator.permutation(n - 2)[:k] for _ in range(batch)])
    index[generator.random((batch, k)) < 0.2] = -1
    value = generator.standard_normal((batch, k)) * (generator.random((batch, k)) < 0.9) * (index >= 0)
    return SparseCode(torch.from_numpy(index), torch.from_numpy(value))


def python_sets(codes: list[SparseCode], n: int) -> list[set[int]]:
    sets: list[set[int]] = [set() for _ in range(n)]
    token = 0
    for code in codes:
        for row, values in zip(code.index.tolist(), code.value.tolist(), strict=True):
            for j, x in zip(row, values, strict=True):
                if x != 0:
                    sets[j].add(token)
            token += 1
    return sets


def members(sets: FiringSets) -> list[list[int]]:
    return [sets.token[a:b].tolist() for a, b in zip(sets.starts, sets.starts[1:], strict=False)]


def test_firing_sets_and_their_transpose() -> None:
    codes = [random_code(11, 15, 4, seed) for seed in range(3)]
    sets = FiringSets.of(codes, 15)
    expected = python_sets(codes, 15)
    assert members(sets) == [sorted(s) for s in expected]
    assert sets.tokens == 33 and sets.counts.tolist() == [len(s) for s in expected]
    transposed = members(sets.by_token())
    assert transposed == [[j for j in range(15) if t in expected[j]] for t in range(33)]
    assert FiringSets.of([], 5).counts.tolist() == [0] * 5


@pytest.mark.parametrize("cells", [1, 60, 1 << 22])
def test_best_jaccard_equals_sets(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS", cells)
    first, second = [random_code(40, 15, 3, 0)], [random_code(40, 22, 4, 1)]
    a, b = python_sets(first, 15), python_sets(second, 22)
    best = best_jaccard(FiringSets.of(first, 15), FiringSets.of(second, 22))
    for i in range(15):
        if not a[i]:
            assert math.isnan(best[i])
            continue
        jaccard = [len(a[i] & b[j]) / len(a[i] | b[j]) for j in range(22)]
        assert best[i] == pytest.approx(max(jaccard))
    itself = best_jaccard(FiringSets.of(first, 15), FiringSets.of(first, 15))
    assert (itself[np.isfinite(itself)] == 1).all()


def test_best_jaccard_of_silent_and_mismatched_sets() -> None:
    some, none = FiringSets.of([random_code(9, 8, 3, 2)], 8), FiringSets.of([random_code(9, 8, 3, 2)], 8)
    none = FiringSets.from_pairs(none.token[:0], none.token[:0], 6, 9)
    best = best_jaccard(some, none)
    assert (best[some.counts > 0] == 0).all()
    assert np.isnan(best_jaccard(none, some)).all()
    with pytest.raises(UserError, match="tokens"):
        best_jaccard(some, FiringSets.of([random_code(10, 8, 3, 2)], 8))


def test_random_sets_keep_rates_and_are_uniform() -> None:
    counts = [0, 1, 3, 5, 8, 10]
    feature = np.repeat(np.arange(6), counts)
    token = np.concatenate([np.arange(c) for c in counts])
    sets = FiringSets.from_pairs(feature, token, 6, 10)
    hits = np.zeros((6, 10))
    for seed in range(600):
        null = random_sets(sets, seed)
        assert null.counts.tolist() == counts and null.tokens == 10
        rows = members(null)
        assert all(len(set(row)) == len(row) and row == sorted(row) for row in rows)
        for j, row in enumerate(rows):
            hits[j, row] += 1
    for j, count in enumerate(counts):
        p = count / 10
        assert (np.abs(hits[j] / 600 - p) <= 4.5 * math.sqrt(p * (1 - p) / 600)).all()
    assert members(random_sets(sets, 7)) == members(random_sets(sets, 7))


@pytest.mark.parametrize("block", [1, 7, 512])
def test_best_cosine_equals_dense(block: int) -> None:
    generator = np.random.default_rng(3)
    values = torch.from_numpy(generator.standard_normal((20, 4)))
    rows = torch.from_numpy(np.stack([generator.permutation(12)[:4] for _ in range(20)]).astype(np.int32))
    sparse = SparseDictionary(values, rows, 12, "torch")
    weight = torch.from_numpy(generator.standard_normal((9, 12)))
    weight[4] = 0
    dense = DenseDictionary(weight)
    written = sparse.columns(torch.arange(20))
    ours = (written / written.norm(dim=1, keepdim=True)).numpy()
    theirs = np.nan_to_num((weight / weight.norm(dim=1, keepdim=True)).numpy())
    expected = np.abs(ours @ theirs.T)
    np.testing.assert_allclose(best_cosine(sparse, dense, block).numpy(), expected.max(axis=1))
    reverse = best_cosine(dense, sparse, block)
    assert math.isnan(reverse[4])
    np.testing.assert_allclose(np.delete(reverse.numpy(), 4), np.delete(expected.max(axis=0), 4))
    with pytest.raises(UserError, match="length"):
        best_cosine(sparse, DenseDictionary(weight[:, :5]))


def test_random_signs_keep_sizes_and_places_and_are_fair() -> None:
    values = torch.rand(500, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    rows = torch.arange(8, dtype=torch.int32).expand(500, 8).contiguous()
    for dictionary, entries in (
        (SparseDictionary(values, rows, 9, "torch"), "values"),
        (DenseDictionary(values), "weight"),
    ):
        signed = getattr(random_signs(dictionary, 3), entries)
        assert torch.equal(signed.abs(), values)
        assert abs(float((signed > 0).double().mean()) - 0.5) < 4.5 * 0.5 / math.sqrt(4000)
        # Within a column and within a row, not one sign for all.
        assert abs(float((signed > 0).double().mean(dim=1).std()) - 0.5 / math.sqrt(8)) < 0.02
        assert torch.equal(getattr(random_signs(dictionary, 3), entries), signed)
        assert not torch.equal(getattr(random_signs(dictionary, 4), entries), signed)


def test_random_signs_of_columns_in_a_subspace_are_those_of_what_they_write() -> None:
    """Signs of coordinates in a basis would leave columns near its first directions where they are."""
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(9, 4, generator=generator, dtype=torch.float64))[0].T
    inner = DenseDictionary(torch.randn(50, 4, generator=generator, dtype=torch.float64))
    dictionary = SubspaceDictionary(inner, basis)
    written = dictionary.columns(torch.arange(50))
    signed = random_signs(dictionary, 3).columns(torch.arange(50))
    torch.testing.assert_close(signed, random_signs(DenseDictionary(written), 3).columns(torch.arange(50)))
    torch.testing.assert_close(signed.abs(), written.abs())


def test_token_entropy_equals_counts() -> None:
    code = random_code(60, 12, 4, 5)
    ids = np.random.default_rng(6).integers(0, 5, 60)
    found = token_entropy(FiringSets.of([code], 12), ids)
    for j, tokens in enumerate(python_sets([code], 12)):
        if not tokens:
            assert math.isnan(found[j])
            continue
        times = Counter(int(ids[t]) for t in tokens)
        shares = [c / len(tokens) for c in times.values()]
        assert found[j] == pytest.approx(-sum(p * math.log2(p) for p in shares), abs=1e-12)
    four = FiringSets.from_pairs(np.array([0, 0, 0, 0, 1]), np.array([0, 1, 2, 3, 0]), 2, 4)
    assert token_entropy(four, np.array([9, 8, 7, 6])).tolist() == [2.0, 0.0]
    with pytest.raises(UserError, match="token ids"):
        token_entropy(four, ids)


def test_dead_fraction() -> None:
    code = random_code(50, 40, 3, 8)
    sets = FiringSets.of([code], 40)
    found = {size: dead_fraction(sets, size) for size in (1, 7, 50)}
    for size, share in found.items():
        head = SparseCode(code.index[:size], code.value[:size])
        assert share == pytest.approx(float((head.counts(40) == 0).double().mean()))
    assert found[1] > found[7] > found[50] > 0
    with pytest.raises(UserError, match="51"):
        dead_fraction(sets, 51)
