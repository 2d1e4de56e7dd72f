"""Sparse probes: how well a label is told from the values of a few features.

For each label the features are ranked by the absolute correlation of their value with the label. On the first
1, 5 or 20 of them a logistic regression is fitted (sum of log-losses and ½‖w‖² of weights on values of unit
root mean square), and the threshold with the largest F1 is taken: all of that on one half of the documents.
F1 is that of the other half, and the halves change places. Gurnee et al. (2023, arXiv 2305.01610) probe so.
Neither the order of the features nor the scale of their values changes anything but rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.label_families import Documents, Family
from expander_sae.evaluation.label_scores import LabelScores

SIZES = (1, 5, 20)
LEAST_FIRINGS = 4
"""A feature that fires on fewer tokens of the half that it is chosen on is no candidate."""

_TOLERANCE = 1e-9
_STEPS = 100


def probes(
    values: FeatureValues, family: Family, documents: Documents, sizes: Sequence[int] = SIZES
) -> dict[int, LabelScores]:
    """Number of features → scores of the probes of every label."""
    labels = len(family.names)
    found = {size: [np.zeros((documents.count, labels)) for _ in range(3)] for size in sizes}
    for fitted_on in (False, True):
        fit = documents.odd == fitted_on
        ranked = ranking(values, family, fit, max(sizes))
        for label, features in enumerate(ranked):
            labelled = family.label == label
            for size, sums in found.items():
                predicted = _predicted(values, features[:size], labelled, fit)
                for total, told in zip(sums, (predicted & labelled, predicted, labelled), strict=True):
                    place = documents.index[told & ~fit]
                    total[:, label] += np.bincount(place, minlength=documents.count)
    return {size: LabelScores(*sums) for size, sums in found.items()}


def ranking(values: FeatureValues, family: Family, on: np.ndarray, most: int) -> list[np.ndarray]:
    """For each label at most so many features, by falling |correlation| on the tokens `on`, bool [N]."""
    n, labels, total = len(values.starts) - 1, len(family.names), int(on.sum())
    seen = on[values.token]
    feature, value, label = values.feature[seen], values.value[seen], family.label[values.token[seen]]
    fires, first, second = (np.bincount(feature, power, n) for power in (None, value, value**2))
    variance = second / total - (first / total) ** 2
    candidates = np.flatnonzero((fires >= LEAST_FIRINGS) & (variance > 0))
    marked = label >= 0
    products = np.bincount(feature[marked] * labels + label[marked], value[marked], n * labels)
    share = np.bincount(family.label[on & (family.label >= 0)], minlength=labels) / total
    covariance = products.reshape(n, labels)[candidates] / total - first[candidates, None] / total * share
    strength = np.abs(covariance) / np.sqrt(variance[candidates, None])
    order = np.argsort(-strength, axis=0, kind="stable")[:most]
    return [candidates[order[:, label]] for label in range(labels)]


def _predicted(
    values: FeatureValues, features: np.ndarray, labelled: np.ndarray, fit: np.ndarray
) -> np.ndarray:
    """bool [N]: of which tokens a probe of these features tells the label, fitted on the tokens `fit`."""
    token, written = values.rows(features, np.ones_like(fit))
    fitted = fit[token]
    scale = np.sqrt((written[fitted] ** 2).sum(axis=0) / max(int(fit.sum()), 1))
    written = np.hstack([written / np.where(scale > 0, scale, 1.0), np.ones((len(token), 1))])
    # The tokens on which none of them fires are all alike: one row that counts for all of them.
    silent_row = np.append(np.zeros(len(features)), 1.0)
    rest = np.bincount(labelled[fit], minlength=2) - np.bincount(labelled[token[fitted]], minlength=2)
    x = np.vstack([written[fitted], silent_row])
    positive = np.append(labelled[token[fitted]].astype(np.float64), rest[1])
    total = np.append(np.ones(int(fitted.sum())), rest.sum())
    weights = logistic(x, positive, total)
    threshold = best_threshold(x @ weights, positive, total)
    predicted = np.full(len(fit), silent_row @ weights > threshold)
    predicted[token] = written @ weights > threshold
    return predicted


def logistic(x: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The minimiser over w of Σ (total·log(1 + eᶻ) − positive·z) + ½Σ wᵢ², z = xw, by Newton's method.

    Args:
        x: float64 [rows, q], the last column of ones: its weight is not penalised.
        positive, total: float64 [rows], how many tokens of each row have the label, and how many there are.
    """
    penalty = np.append(np.ones(x.shape[1] - 1), 1e-9)  # nothing to speak of, where all or no tokens have it

    def loss(weights: np.ndarray) -> float:
        z = x @ weights
        return float((total * np.logaddexp(0.0, z) - positive * z).sum() + 0.5 * (penalty * weights**2).sum())

    weights = np.zeros(x.shape[1])
    least = loss(weights)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -500, 500)))
        gradient = x.T @ (total * p - positive) + penalty * weights
        hessian = (x * (total * p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        for _ in range(50):
            tried = loss(weights - step)
            if tried <= least:
                break
            step = step / 2
        if tried > least or np.abs(step).max() <= _TOLERANCE:
            break
        weights, least = weights - step, tried
    return weights


def best_threshold(score: np.ndarray, positive: np.ndarray, total: np.ndarray) -> float:
    """The threshold that tells the label with the largest F1; the highest of equals."""
    order = np.argsort(-score, kind="stable")
    score, hits, fired = score[order], np.cumsum(positive[order]), np.cumsum(total[order])
    below = np.append(score[1:], score[-1] - 2.0)
    # Between scores that differ by rounding alone there is no cut.
    f1 = np.where(score - below > _TOLERANCE, 2 * hits / np.maximum(fired + hits[-1], 1.0), -1.0)
    best = int(np.argmax(f1 > f1.max() - _TOLERANCE))
    return float((score[best] + below[best]) / 2)
