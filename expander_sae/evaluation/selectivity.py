"""Whether single features fire where a label is: the F1 of the best one.

For a label with tokens L and a feature with firing set F,

    F1 = 2·|F ∩ L| / (|F| + |L|)

A feature is chosen on one half of the documents and scored on the other, and the halves change places, so that
every document is scored once. Of features that are equally good, those that fire most often are taken, and
what they do is averaged. Only which values are not zero counts: neither the order of the features nor the
scale of their values changes anything.
"""

from __future__ import annotations

import numpy as np

from expander_sae.evaluation.features import FiringSets
from expander_sae.evaluation.label_families import Documents, Family
from expander_sae.evaluation.label_scores import LabelScores

FREQUENT = 0.1
"""A feature that fires on a larger share of the tokens says little about any of them."""


def selectivity(sets: FiringSets, family: Family, documents: Documents) -> LabelScores:
    """Scores of the best single feature of each label. Time O(firings + n·L)."""
    labels = len(family.names)
    hits, fired, has = (np.zeros((documents.count, labels)) for _ in range(3))
    odd = documents.odd
    for chosen_on in (False, True):
        best = best_features(sets, family, odd == chosen_on)
        scored = odd != chosen_on
        for label, features in enumerate(best):
            labelled = family.label == label
            has[:, label] += _by_document(documents, np.flatnonzero(labelled & scored))
            if len(features):
                token = np.concatenate([sets.token[sets.starts[j] : sets.starts[j + 1]] for j in features])
                token = token[scored[token]]
                fired[:, label] += _by_document(documents, token) / len(features)
                hits[:, label] += _by_document(documents, token[labelled[token]]) / len(features)
    return LabelScores(hits, fired, has)


def best_features(sets: FiringSets, family: Family, on: np.ndarray) -> list[np.ndarray]:
    """For each label the features of the largest F1 on the tokens `on`, bool [N]; none where no F1 is above 0."""
    labels = len(family.names)
    feature, label = sets.feature, family.label[sets.token]
    seen = on[sets.token]
    fires = np.bincount(feature[seen], minlength=sets.n)
    both = seen & (label >= 0)
    hits = np.bincount(feature[both] * labels + label[both], minlength=sets.n * labels)
    has = np.bincount(family.label[on & (family.label >= 0)], minlength=labels)
    # Equal fractions of whole numbers are equal numbers, so that equals are found by ==.
    f1 = 2 * hits.reshape(sets.n, labels) / np.maximum(fires[:, None] + has, 1)
    found = []
    for column in f1.T:
        best = np.flatnonzero((column == column.max(initial=0.0)) & (column > 0))
        found.append(best[fires[best] == fires[best].max(initial=0)])
    return found


def frequent_share(sets: FiringSets) -> float:
    """Share of the features that fire on more than a tenth of the tokens."""
    return float((sets.counts > FREQUENT * sets.tokens).mean())


def _by_document(documents: Documents, token: np.ndarray) -> np.ndarray:
    """float64 [D]: how many of these tokens each document has."""
    return np.bincount(documents.index[token], minlength=documents.count).astype(np.float64)
