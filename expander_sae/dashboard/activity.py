"""Which features fire where and with what else: sums over tokens of sparse codes, no n × n matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from expander_sae.dashboard.sources import Sources
from expander_sae.errors import UserError
from expander_sae.model.dictionary import joined
from expander_sae.pursuit.codes import codes_of, encoded_rows
from expander_sae.pursuit.inference import INFERENCES


@dataclass(frozen=True)
class Correlated:
    """What is most correlated with a feature, by falling Pearson correlation, and the cosine of each."""

    index: list[int]
    pearson: list[float]
    cosine: list[float]


@dataclass(frozen=True)
class Sums:
    """Sums of values and of their squares over tokens, float64, of some rows."""

    first: np.ndarray
    second: np.ndarray

    def deviation(self, tokens: int) -> np.ndarray:
        """√(T·Σx² − (Σx)²), without what rounding leaves below 0."""
        return np.sqrt(np.maximum(tokens * self.second - self.first**2, 0))


class Activity:
    """Positive activations of the encoder on the encoded ones of the first tokens.

    fired: float64 [n, encoded], each row a feature, its tokens ascending; rows: int64 [encoded], where they
    stand among the activations. Values that are not positive are left out, as SAEDashboard does.

    Raises:
        UserError: no token to encode, or codes that are not finite.
    """

    def __init__(self, sources: Sources, tokens: int) -> None:
        sae, pool = sources.autoencoder, sources.pool
        tokens = min(tokens, pool.tokens)
        self.rows = encoded_rows(sae, pool.activations[:tokens], pool.path, pool.norms[:tokens])
        h = pool.activations[self.rows]
        code = joined(codes_of(sae, h, INFERENCES["encoder"], "encoder"))
        if not torch.isfinite(code.value).all():
            raise UserError(f"{sources.folder}: found codes that are not finite, expected numbers")
        token, slot = np.nonzero((code.value > 0).numpy())
        value = code.value.numpy()[token, slot].astype(np.float64)
        shape = (sae.n, len(self.rows))
        self.fired = sparse.csr_array((value, (code.index.numpy()[token, slot], token)), shape)
        self.fired.sort_indices()
        self._features = Sums(self.fired.sum(axis=1), self.fired.power(2).sum(axis=1))
        self._h = h.astype(np.float64)
        self._neurons = Sums(self._h.sum(axis=0), (self._h**2).sum(axis=0))

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows of the activations, ascending; values float64) on which the feature fires."""
        part = slice(self.fired.indptr[feature], self.fired.indptr[feature + 1])
        return self.rows[self.fired.indices[part]], self.fired.data[part]

    def neurons(self, features: np.ndarray, most: int) -> list[Correlated]:
        """The coordinates of the activations that go with each feature."""
        products, every = self.fired[features] @ self._h, np.arange(self._h.shape[1])
        return [
            self._correlated(feature, every, row, self._neurons, most)
            for feature, row in zip(features, products, strict=True)
        ]

    def features(self, features: np.ndarray, most: int) -> list[Correlated]:
        """The other features that fire with each one."""
        products = (self.fired[features] @ self.fired.T).tocsr()
        found = []
        for place, feature in enumerate(features):
            part = slice(products.indptr[place], products.indptr[place + 1])
            others = products.indices[part]
            apart = others != feature
            found.append(
                self._correlated(feature, others[apart], products.data[part][apart], self._features, most)
            )
        return found

    def _correlated(
        self, feature: int, others: np.ndarray, products: np.ndarray, sums: Sums, most: int
    ) -> Correlated:
        """Of `others`, whose `products` with the feature are sums over tokens; constant ones have none."""
        tokens, own = len(self.rows), Sums(self._features.first[feature], self._features.second[feature])
        theirs = Sums(sums.first[others], sums.second[others])
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = products / np.sqrt(own.second * theirs.second)
            pearson = tokens * products - own.first * theirs.first
            pearson /= own.deviation(tokens) * theirs.deviation(tokens)
        known = np.flatnonzero(np.isfinite(pearson))
        best = known[np.argsort(-pearson[known], kind="stable")[:most]]
        return Correlated(others[best].tolist(), pearson[best].tolist(), cosine[best].tolist())
