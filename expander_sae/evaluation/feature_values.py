"""The values of a code, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expander_sae.evaluation.features import FiringSets, random_sets
from expander_sae.model.dictionary import SparseCode


@dataclass(frozen=True, eq=False)
class FeatureValues(FiringSets):
    """Firing sets with the non-zero values of a code, float64 [E], each beside its `token`."""

    value: np.ndarray

    @staticmethod
    def of_code(code: SparseCode, n: int) -> FeatureValues:
        """From the code of all tokens by n features."""
        sample, place = (code.value != 0).nonzero(as_tuple=True)
        feature = code.index[sample, place].cpu().numpy()
        order = np.argsort(feature, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(feature, minlength=n))])
        value = code.value[sample, place].double().cpu().numpy()
        return FeatureValues(sample.cpu().numpy()[order], starts, len(code.index), value[order])

    def elsewhere(self, seed: int) -> FeatureValues:
        """The values of each feature on tokens drawn at random, as `random_sets` draws them."""
        token = random_sets(self, seed).token
        return FeatureValues(token, self.starts, self.tokens, self.value)

    def rows(self, features: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens among `on` on which one of the features fires, their values [tokens, features])."""
        parts = [slice(self.starts[j], self.starts[j + 1]) for j in features]
        token = np.concatenate([np.empty(0, np.int64), *(self.token[part] for part in parts)])
        slot = np.repeat(np.arange(len(features)), [part.stop - part.start for part in parts])
        value = np.concatenate([np.empty(0), *(self.value[part] for part in parts)])
        kept = on[token]
        unique, inverse = np.unique(token[kept], return_inverse=True)
        written = np.zeros((len(unique), len(features)))
        written[inverse, slot[kept]] = value[kept]
        return unique, written
