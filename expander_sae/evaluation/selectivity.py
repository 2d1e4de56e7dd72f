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

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.label_families import Documents, Family
from expander_sae.evaluation.label_scores import LabelScores
from expander_sae.measurements.bootstrap import bootstrap

LEVEL = 0.95
"""Of the interval of a selectivity."""

FREQUENT = 0.1
"""A feature that fires on a larger share of the tokens says little about any of them."""


DRAWS = 50
"""Of the bootstrap, which chooses anew in each: its standard error is known to 10 %."""


@dataclass(frozen=True)
class Choice:
    """A feature, and the value above which it tells of the label."""

    feature: int
    threshold: float


class Candidates:
    """What can be chosen on the tokens `on`, bool [N], sorted once for all weights of the documents.

    The best threshold of a feature is right behind a token that has the label, so that there is a candidate
    for each value above 0 on a labelled token: int64 [C], by label, feature and falling value.
    """

    def __init__(self, values: FeatureValues, family: Family, on: np.ndarray) -> None:
        kept = on[values.token] & (values.value > 0)
        token, feature, value = values.token[kept], values.feature[kept], values.value[kept]
        order = np.lexsort((-value, feature))
        self.token, self.feature, self.value = token[order], feature[order], value[order]
        self.labels, self.labelled = len(family.names), np.flatnonzero(on & (family.label >= 0))
        self.has_label = family.label[self.labelled]
        label = family.label[self.token]
        place = np.flatnonzero(label >= 0)
        self.place = place = place[np.argsort(label[place], kind="stable")]
        self.label, of = label[place], self.feature[place]
        # Tokens of one value are told of together: `last` is the last of them, of all and of those labelled.
        ends = _run_ends(self.feature, self.value)
        self.last = ends[place]
        self.last_labelled = _run_ends(self.label, of, self.value[place])
        self.before = np.searchsorted(self.feature, of)
        group = np.append(True, (self.label[1:] != self.label[:-1]) | (of[1:] != of[:-1]))[: len(of)]
        self.before_labelled = np.maximum.accumulate(np.where(group, np.arange(len(of)), 0))
        self.edges = np.searchsorted(self.label, np.arange(self.labels + 1))

    def best(self, weight: np.ndarray) -> list[list[Choice]]:
        """For each label the choices of the largest F1, weight float64 [N] counting each token so often."""
        live = np.flatnonzero(weight[self.token] > 0)
        every = np.append(0.0, np.cumsum(weight[self.token]))
        own = weight[self.token[self.place]]
        marked = np.append(0.0, np.cumsum(own))
        fired = every[self.last + 1] - every[self.before]
        hits = marked[self.last_labelled + 1] - marked[self.before_labelled]
        has = np.bincount(self.has_label, weight[self.labelled], self.labels)
        # Equal fractions of whole numbers are equal numbers, so that equals are found by ==.
        f1 = np.divide(2 * hits, fired + has[self.label], out=np.zeros(len(hits)), where=own > 0)
        found: list[list[Choice]] = []
        for start, stop in pairwise(self.edges):
            part = slice(start, stop)
            equal = start + np.flatnonzero((f1[part] == f1[part].max(initial=0.0)) & (own[part] > 0))
            most = equal[fired[equal] == fired[equal].max(initial=0.0)]
            found.append([self._choice(end, live) for end in np.unique(self.last[most])])
        return found

    def _choice(self, end: int, live: np.ndarray) -> Choice:
        """Half way to the feature's next smaller value among those in `live`; 0 behind the last."""
        place = np.searchsorted(live, end, side="right")
        threshold = 0.0
        if place < len(live) and self.feature[live[place]] == self.feature[end]:
            threshold = float((self.value[end] + self.value[live[place]]) / 2)
        return Choice(int(self.feature[end]), threshold)


def _run_ends(*columns: np.ndarray) -> np.ndarray:
    """int64 [E]: for each row of sorted columns the last row that is equal to it."""
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    ends = np.append(changes, True)[: len(columns[0])]
    return np.flatnonzero(ends)[np.cumsum(ends) - ends]


class Selectivity:
    """The best single feature of each label of a family. Time O(firings · log firings)."""

    def __init__(self, values: FeatureValues, family: Family, documents: Documents) -> None:
        self.values, self.family, self.documents = values, family, documents
        self._candidates = [Candidates(values, family, documents.odd == half) for half in (False, True)]

    def scores(self, weight: np.ndarray | None = None) -> LabelScores:
        """What features do that are chosen with these weights of the documents, float64 [D], or all alike."""
        documents, labels, odd = self.documents, len(self.family.names), self.documents.odd
        weight = np.ones(documents.count) if weight is None else weight
        hits, fired, has = (np.zeros((documents.count, labels)) for _ in range(3))
        for chosen_on, candidates in zip((False, True), self._candidates, strict=True):
            for label, equals in enumerate(candidates.best(weight[documents.index])):
                for choice in equals:
                    token = self._told(choice)
                    token = token[odd[token] != chosen_on]
                    fired[:, label] += _by_document(documents, token) / len(equals)
                    token = token[self.family.label[token] == label]
                    hits[:, label] += _by_document(documents, token) / len(equals)
        for label in range(labels):
            has[:, label] = _by_document(documents, np.flatnonzero(self.family.label == label))
        return LabelScores(hits, fired, has)

    def _told(self, choice: Choice) -> np.ndarray:
        """The tokens of which a choice tells the label."""
        part = slice(self.values.starts[choice.feature], self.values.starts[choice.feature + 1])
        return self.values.token[part][self.values.value[part] > choice.threshold]

    def summary(self, name: str) -> dict[str, float]:
        """`name`: the mean F1 over labels; `name`_low and _high: its 95 % interval over documents.

        Features are chosen anew in each draw of documents: given the choice the interval would be half as
        wide as values on other documents differ.
        """

        def statistic(drawn: Mapping[str, np.ndarray], _: np.ndarray) -> np.ndarray:
            return np.array([self.scores(weight).mean(weight[None])[0] for weight in drawn["test"]])

        found = bootstrap(statistic, {"test": self.documents.count}, seeds=1, draws=DRAWS)
        values = {name: found.value}
        if interval := found.interval(LEVEL):
            values |= {f"{name}_low": interval[0], f"{name}_high": interval[1]}
        return values


def frequent_share(values: FeatureValues) -> float:
    """Share of the features that fire on more than a tenth of the tokens."""
    return float((values.counts > FREQUENT * values.tokens).mean())


def _by_document(documents: Documents, token: np.ndarray) -> np.ndarray:
    """float64 [D]: how many of these tokens each document has."""
    return np.bincount(documents.index[token], minlength=documents.count).astype(np.float64)
