"""Whether single features stand for labels: the F1 of the best one with its best threshold.

A feature j with a threshold t ≥ 0 tells of a token that it has the label where its value exceeds t. With the
set T of such tokens and the set L of those that have the label,

    F1 = 2·|T ∩ L| / (|T| + |L|)

Feature and threshold are chosen on one half of the documents and scored on the other, and the halves change
places, so that every document is scored once. Of equally good choices those that tell of most tokens are
taken, and what they do is averaged. Neither the order of the features nor a positive scale of their values
changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.label_families import Documents, Family
from expander_sae.evaluation.label_scores import LabelScores

FREQUENT = 0.1
"""A feature that fires on a larger share of the tokens says little about any of them."""


@dataclass(frozen=True)
class Choice:
    """A feature, and the value above which it tells of the label."""

    feature: int
    threshold: float


def selectivity(values: FeatureValues, family: Family, documents: Documents) -> LabelScores:
    """Scores of the best single feature of each label. Time O(firings · log firings)."""
    labels, odd = len(family.names), documents.odd
    hits, fired, has = (np.zeros((documents.count, labels)) for _ in range(3))
    for chosen_on in (False, True):
        choices = best_choices(values, family, odd == chosen_on)
        scored = odd != chosen_on
        for label, equals in enumerate(choices):
            labelled = family.label == label
            has[:, label] += _by_document(documents, np.flatnonzero(labelled & scored))
            for choice in equals:
                part = slice(values.starts[choice.feature], values.starts[choice.feature + 1])
                token = values.token[part][values.value[part] > choice.threshold]
                token = token[scored[token]]
                fired[:, label] += _by_document(documents, token) / len(equals)
                hits[:, label] += _by_document(documents, token[labelled[token]]) / len(equals)
    return LabelScores(hits, fired, has)


def best_choices(values: FeatureValues, family: Family, on: np.ndarray) -> list[list[Choice]]:
    """For each label the choices of the largest F1 on the tokens `on`, bool [N]; none where no F1 is above 0.

    The best threshold of a feature is right behind a token that has the label, so that there are at most as
    many candidates as firings.
    """
    kept = on[values.token] & (values.value > 0)
    feature, value = values.feature[kept], values.value[kept]
    label = family.label[values.token[kept]]
    order = np.lexsort((-value, feature))
    feature, value, label = feature[order], value[order], label[order]
    # Tokens of one value are told of together: `last` is the last of them.
    behind = np.append((feature[1:] != feature[:-1]) | (value[1:] != value[:-1]), True)[: len(feature)]
    last = np.flatnonzero(behind)[np.cumsum(behind) - behind]
    starts = np.searchsorted(feature, feature)
    fired = last - starts + 1
    has = np.bincount(family.label[on & (family.label >= 0)], minlength=len(family.names))
    found: list[list[Choice]] = []
    for one in range(len(family.names)):
        place = np.flatnonzero(label == one)
        known = np.cumsum(label == one)
        hits = known[last[place]] - np.where(starts[place] > 0, known[starts[place] - 1], 0)
        # Equal fractions of whole numbers are equal numbers, so that equals are found by ==.
        f1 = 2 * hits / (fired[place] + has[one])
        best = place[f1 == f1.max(initial=0.0)]
        ends = np.unique(last[best[fired[best] == fired[best].max(initial=0)]])
        found.append([Choice(int(feature[end]), _threshold(feature, value, end)) for end in ends])
    return found


def _threshold(feature: np.ndarray, value: np.ndarray, end: int) -> float:
    """Half way to the feature's next smaller value; 0 behind its last."""
    if end + 1 == len(feature) or feature[end + 1] != feature[end]:
        return 0.0
    return float((value[end] + value[end + 1]) / 2)


def frequent_share(values: FeatureValues) -> float:
    """Share of the features that fire on more than a tenth of the tokens."""
    return float((values.counts > FREQUENT * values.tokens).mean())


def _by_document(documents: Documents, token: np.ndarray) -> np.ndarray:
    """float64 [D]: how many of these tokens each document has."""
    return np.bincount(documents.index[token], minlength=documents.count).astype(np.float64)
