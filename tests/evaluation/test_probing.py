"""Sparse probes: against a general minimiser, on planted features, and what must change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.probing import best_threshold, logistic, probes, ranking
from expander_sae.model.dictionary import SparseCode
from tests.evaluation.labelled import LABELS, TOKENS, labelled_tokens, planted_code, random_code


def dense(code: SparseCode, n: int) -> np.ndarray:
    """The code written out, float64 [N, n]."""
    written = np.zeros((len(code.index), n))
    for token, (index, value) in enumerate(zip(code.index.tolist(), code.value.tolist(), strict=True)):
        for j, x in zip(index, value, strict=True):
            written[token, j] += x if j >= 0 else 0.0
    return written


@pytest.mark.parametrize("seed", range(4))
def test_the_minimiser_is_that_of_a_general_method(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = np.hstack([generator.standard_normal((60, 3)) * (generator.random((60, 3)) < 0.5), np.ones((60, 1))])
    total = generator.integers(1, 5, 60).astype(float)
    positive = generator.binomial(total.astype(int), 0.3 + 0.4 * (x[:, 0] > 0)).astype(float)

    def loss(w: np.ndarray) -> float:
        z = x @ w
        return float((total * np.logaddexp(0, z) - positive * z).sum() + 0.5 * (w[:-1] ** 2).sum())

    expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
    found = logistic(x, positive, total)
    assert found == pytest.approx(expected.x, abs=1e-5)
    assert loss(found) <= expected.fun + 1e-9


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_labels_that_all_or_no_tokens_have_can_be_fitted(share: float) -> None:
    x = np.hstack([np.random.default_rng(0).standard_normal((20, 2)), np.ones((20, 1))])
    weights = logistic(x, np.full(20, share), np.ones(20))
    assert np.isfinite(weights).all()
    assert ((x @ weights > 0) == bool(share)).all()


def test_the_threshold_has_the_largest_f1() -> None:
    generator = np.random.default_rng(0)
    score, total = generator.standard_normal(40), generator.integers(1, 4, 40).astype(float)
    positive = np.minimum(total, generator.integers(0, 3, 40)) * (score > 0)

    def f1(threshold: float) -> float:
        told = score > threshold
        return float(2 * positive[told].sum() / (total[told].sum() + positive.sum()))

    best = best_threshold(score, positive, total)
    assert f1(best) == max(f1(threshold) for threshold in [*score, score.min() - 1])
    assert min(abs(score - best)) > 0


def test_features_are_ranked_by_their_correlation_on_one_half() -> None:
    family, documents = labelled_tokens(0)
    code = random_code(0, n=30, k=8)
    written, half = dense(code, 30), ~documents.odd
    found = ranking(FeatureValues.of_code(code, 30), family, half, 5)
    for label, features in enumerate(found):
        of = (family.label == label)[half].astype(float)
        by = [abs(np.corrcoef(written[half, j], of)[0, 1]) for j in range(30)]
        assert features.tolist() == np.argsort(by)[::-1][:5].tolist()


def test_a_feature_that_fires_on_few_tokens_is_no_candidate() -> None:
    family, documents = labelled_tokens(0)
    index = torch.zeros(TOKENS, 1, dtype=torch.int64)
    index[np.flatnonzero((family.label == 0) & documents.odd)[:3]] = 1
    value = torch.from_numpy(np.random.default_rng(0).uniform(1, 2, (TOKENS, 1)))
    found = ranking(FeatureValues.of_code(SparseCode(index, value), 2), family, documents.odd, 5)
    assert [features.tolist() for features in found] == [[0]] * LABELS


def test_planted_features_have_one_and_values_tell_more_than_firing() -> None:
    family, documents = labelled_tokens(0)
    scores = probes(FeatureValues.of_code(planted_code(family, 60, 6, 0), 60), family, documents)
    assert scores[1].mean()[0] == 1.0 and min(scores[5].mean()[0], scores[20].mean()[0]) > 0.98
    # A feature that fires on every token, and large where the label is: firing says nothing, its value all.
    value = np.random.default_rng(0).uniform(1, 2, TOKENS) + 2 * (family.label == 0)
    loud = SparseCode(torch.zeros(TOKENS, 1, dtype=torch.int64), torch.from_numpy(value)[:, None])
    assert probes(FeatureValues.of_code(loud, 1), family, documents, (1,))[1].f1()[0, 0] == 1.0


def test_a_label_that_three_features_share_needs_a_probe_of_more_than_one() -> None:
    family, documents = labelled_tokens(0)
    generator = np.random.default_rng(0)
    part = generator.integers(0, 3, TOKENS)
    index = torch.from_numpy(np.where(family.label == 0, part, 3 + generator.integers(0, 50, TOKENS)))[
        :, None
    ]
    code = SparseCode(index, torch.from_numpy(generator.uniform(1, 2, (TOKENS, 1))))
    scores = probes(FeatureValues.of_code(code, 53), family, documents)
    one, five = scores[1].f1()[0, 0], scores[5].f1()[0, 0]
    assert 0.3 < one < 0.7 and five == 1.0


def test_features_at_random_do_no_better_than_telling_the_label_of_every_token() -> None:
    """F1 of telling it of all tokens is 2p/(1 + p), p the share of tokens that have it."""
    family, documents = labelled_tokens(0)
    scores = probes(FeatureValues.of_code(random_code(5, 200, 10), 200), family, documents)
    p = np.bincount(family.label[family.label >= 0]) / TOKENS
    for found in scores.values():
        assert found.mean()[0] < (2 * p / (1 + p)).mean() + 0.05


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_order_of_features_and_scale_of_codes_change_nothing(seed: int, planted: bool) -> None:
    family, documents = labelled_tokens(seed % 5)
    code = planted_code(family, 40, 6, seed) if planted else random_code(seed, 40, 8)
    generator = np.random.default_rng(seed)
    renamed = torch.from_numpy(generator.permutation(40))
    # Powers of two: the same digits, so that the same cuts are between the same numbers.
    factor = torch.from_numpy(2.0 ** generator.integers(-6, 7, 40) * generator.choice([-1.0, 1.0], 40))
    value = code.value * factor[code.index.clamp(min=0)]
    other = SparseCode(torch.where(code.index >= 0, renamed[code.index.clamp(min=0)], -1), value)
    first, second = (probes(FeatureValues.of_code(one, 40), family, documents) for one in (code, other))
    for size, scores in first.items():
        assert second[size].f1() == pytest.approx(scores.f1(), abs=1e-9)


def test_sums_are_by_document() -> None:
    family, documents = labelled_tokens(1)
    found = probes(FeatureValues.of_code(random_code(1, 50, 6), 50), family, documents, (5,))[5]
    for label in range(LABELS):
        expected = np.bincount(documents.index[family.label == label], minlength=documents.count)
        assert found.has[:, label].tolist() == expected.tolist()
    assert (found.hits <= np.minimum(found.fired, found.has)).all()
    assert found.fired.sum() > 0
