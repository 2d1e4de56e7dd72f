"""The best single feature of each label: planted features, Python sets, and what must change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.label_families import Documents, Family, family_of
from expander_sae.evaluation.label_scores import LabelScores
from expander_sae.evaluation.selectivity import Selectivity, frequent_share
from expander_sae.model.dictionary import SparseCode
from tests.evaluation.labelled import LABELS, TOKENS, labelled_tokens, noisy_code, planted_code, random_code


def by_hand(code: SparseCode, n: int, family: Family, documents: Documents) -> list[float]:
    """F1 of each label: every feature with every threshold between its values, as sets of tokens."""
    value: list[dict[int, float]] = [{} for _ in range(n)]
    for token, (index, values) in enumerate(zip(code.index.tolist(), code.value.tolist(), strict=True)):
        for j, x in zip(index, values, strict=True):
            if x > 0:
                value[j][token] = x
    halves = [set(np.flatnonzero(documents.index % 2 == half).tolist()) for half in (0, 1)]
    found = []
    for label in range(len(family.names)):
        has = set(np.flatnonzero(family.label == label).tolist())
        hits = fires = 0.0
        for chosen, scored in (halves, halves[::-1]):
            choices = []
            for j in range(n):
                cuts = sorted({x for token, x in value[j].items() if token in chosen})
                for low, high in zip([-cuts[0], *cuts] if cuts else [], cuts, strict=False):
                    told = {token for token, x in value[j].items() if x > (low + high) / 2}
                    f1 = 2 * len(told & has & chosen) / (len(told & chosen) + len(has & chosen))
                    choices.append((f1, len(told & chosen), told))
            best = max((one[:2] for one in choices if one[0] > 0), default=None)
            equals = [told for *one, told in choices if tuple(one) == best]
            hits += sum(len(told & has & scored) for told in equals) / max(len(equals), 1)
            fires += sum(len(told & scored) for told in equals) / max(len(equals), 1)
        found.append(2 * hits / (fires + len(has)))
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rounded", [False, True])
def test_against_sets_of_tokens(seed: int, rounded: bool) -> None:
    """Rounded values are shared by tokens, which are told of together, and by features that are equal."""
    family, documents = labelled_tokens(seed)
    code = random_code(seed, n=30, k=5)
    code = SparseCode(code.index, code.value.round()) if rounded else code
    scores = Selectivity(FeatureValues.of_code(code, 30), family, documents).scores()
    assert scores.f1()[0] == pytest.approx(by_hand(code, 30, family, documents), rel=1e-12)
    assert scores.has.sum(axis=0).tolist() == [(family.label == label).sum() for label in range(LABELS)]


def test_planted_features_have_one_and_random_ones_next_to_nothing() -> None:
    family, documents = labelled_tokens(0)
    code = FeatureValues.of_code(planted_code(family, n=200, k=6, seed=1), 200)
    values = Selectivity(code, family, documents).summary("selectivity")
    assert values == {"selectivity": 1.0, "selectivity_low": 1.0, "selectivity_high": 1.0}
    chance = Selectivity(code.elsewhere(0), family, documents).summary("selectivity")
    assert chance["selectivity_low"] < chance["selectivity"] < chance["selectivity_high"] < 0.25


def test_a_feature_that_fires_everywhere_is_read_by_its_large_values() -> None:
    family, documents = labelled_tokens(0)
    value = np.random.default_rng(0).uniform(1, 2, TOKENS) + 2 * (family.label == 0)
    code = SparseCode(torch.zeros(TOKENS, 1, dtype=torch.int64), torch.from_numpy(value)[:, None])
    assert Selectivity(FeatureValues.of_code(code, 1), family, documents).scores().f1()[0, 0] == 1.0


def test_negative_values_tell_of_nothing() -> None:
    family, documents = labelled_tokens(0)
    code = planted_code(family, 60, 4, 0)
    none = FeatureValues.of_code(SparseCode(code.index, -code.value.abs()), 60)
    assert Selectivity(none, family, documents).scores().f1()[0].tolist() == [0.0] * LABELS


def test_a_feature_that_was_chosen_by_luck_is_not_paid_for() -> None:
    """Of many features at random the best on all documents looks good; chosen on a half it is not."""
    family, documents = labelled_tokens(0)
    code = random_code(3, n=2000, k=40)
    values = FeatureValues.of_code(SparseCode(code.index, code.value.abs()), 2000)
    best = []
    for label in range(LABELS):
        has = set(np.flatnonzero(family.label == label).tolist())
        told = [
            set(values.token[a:b].tolist()) for a, b in zip(values.starts, values.starts[1:], strict=False)
        ]
        best.append(max(2 * len(one & has) / (len(one) + len(has)) for one in told))
    assert Selectivity(values, family, documents).scores().mean()[0] < 0.5 * np.mean(best)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_order_of_features_and_scale_of_codes_change_nothing(seed: int, planted: bool) -> None:
    family, documents = labelled_tokens(seed % 5)
    code = planted_code(family, 40, 6, seed) if planted else random_code(seed, 40, 6)
    generator = np.random.default_rng(seed)
    renamed = torch.from_numpy(generator.permutation(40))
    factor = torch.from_numpy(generator.uniform(1e-3, 1e3, 40))
    value = code.value * factor[code.index.clamp(min=0)]
    other = SparseCode(torch.where(code.index >= 0, renamed[code.index.clamp(min=0)], -1), value)
    first, second = (FeatureValues.of_code(one, 40) for one in (code, other))
    scores = [Selectivity(one, family, documents).scores() for one in (first, second)]
    for name in ("hits", "fired", "has"):
        assert getattr(scores[0], name) == pytest.approx(getattr(scores[1], name), abs=1e-12)
    assert frequent_share(first) == frequent_share(second)


def test_features_that_fire_on_more_than_a_tenth() -> None:
    index = torch.full((100, 3), -1)
    index[:10, 0], index[:11, 1], index[:, 2] = 0, 1, 3
    code = SparseCode(index, (index >= 0).double())
    assert frequent_share(FeatureValues.of_code(code, 4)) == 2 / 4


def test_halves_alternate_by_document_and_labels_that_are_rare_do_not_count() -> None:
    document = np.repeat([7, 3, 9, 4], [100, 50, 100, 50])
    documents = Documents.of(document)
    assert documents.count == 4 and documents.index[[0, 99, 100, 150, 299]].tolist() == [0, 0, 1, 2, 3]
    assert documents.odd.sum() == 100
    labels = np.array([None] * 300, object)
    labels[[0, 100, 150, 250]] = "everywhere"
    labels[[1, 101, 151]] = "one document of the second half"
    labels[[2, 3, 102, 152]] = 17
    family = family_of("user", labels, documents)
    assert family.names == ("everywhere",)
    assert np.flatnonzero(family.label == 0).tolist() == [0, 100, 150, 250]
    long = Documents.of(np.arange(2000) // 10)
    few = np.array([None] * 2000, object)
    few[:50:10] = "in five documents"
    assert family_of("user", few, long).names == (), "on fewer than 3 in 1,000 tokens"


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_documents_count_their_tokens_so_often(seed: int) -> None:
    """Whole weights give the choices and the scores of as many copies of each document."""
    family, documents = labelled_tokens(seed)
    code = random_code(seed, n=30, k=5)
    weight = np.random.default_rng(seed).integers(0, 4, documents.count).astype(float)
    # Copies stand in their half: document 2i or 2i + 1 of the copied ones.
    rows, place = [], []
    for half in (0, 1):
        following = half
        for one in range(half, documents.count, 2):
            for _ in range(int(weight[one])):
                token = np.flatnonzero(documents.index == one)
                rows.append(token)
                place.append(np.full(len(token), following))
                following += 2
    token, index = np.concatenate(rows), np.concatenate(place)
    copied = Documents(index, int(index.max()) + 1)
    again = Family("user", family.label[token], family.names)
    other = FeatureValues.of_code(SparseCode(code.index[token], code.value[token]), 30)
    found = Selectivity(FeatureValues.of_code(code, 30), family, documents).scores(weight).f1(weight[None])
    assert found == pytest.approx(Selectivity(other, again, copied).scores().f1(), rel=1e-12)


def test_the_interval_is_as_wide_as_values_of_other_documents_differ() -> None:
    found = []
    for seed in range(12):
        family, documents = labelled_tokens(seed)
        code = noisy_code(family, seed)
        values = Selectivity(FeatureValues.of_code(code, 30), family, documents).summary("mean")
        found.append((values["mean"], (values["mean_high"] - values["mean_low"]) / 2))
    mean, half = np.array(found).T
    assert 0.7 < 2.09 * mean.std(ddof=1) / half.mean() < 1.4


def test_labels_that_no_drawn_document_has_leave_the_mean_of_the_others() -> None:
    one = np.array([[1.0, 0.0], [0.0, 2.0]])
    scores = LabelScores(one, one, one)
    assert scores.f1(np.array([[1.0, 0.0]])).tolist()[0][0] == 1.0
    assert np.isnan(scores.f1(np.array([[1.0, 0.0]]))[0, 1])
    assert scores.mean(np.array([[1.0, 0.0], [0.0, 1.0]])).tolist() == [1.0, 1.0]
