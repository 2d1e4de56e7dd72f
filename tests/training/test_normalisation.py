"""The norm limit, scale and mean of activations, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expander_sae.errors import UserError
from expander_sae.study.recipes import RECIPES, Recipe
from expander_sae.training.normalisation import normalisation
from expander_sae.training.tensor_pool import TensorPool

M, TOKENS = 5, 70
STANDARD = Recipe(norm_limit=3.0)


@pytest.fixture
def values() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((TOKENS, M)).astype(np.float32) + 1
    drawn[::10] *= 100  # massive activations
    return drawn


@pytest.mark.parametrize("tokens", [TOKENS, 41, 1])
def test_limit_scale_and_mean_by_hand(values: np.ndarray, tokens: int) -> None:
    found = normalisation(TensorPool(values), tokens, STANDARD)
    used = values[:tokens].astype(np.float64)
    norms = np.linalg.norm(used, axis=1)
    kept = norms <= 3 * np.median(norms)
    assert found.limit == found.norm_limit == pytest.approx(3 * np.median(norms), rel=1e-12)
    assert np.array_equal(found.kept, np.flatnonzero(kept))
    np.testing.assert_allclose(found.mean, used[kept].mean(axis=0), rtol=1e-6)
    assert np.linalg.norm(found.scale * used[kept], axis=1).mean() == pytest.approx(math.sqrt(M), rel=1e-12)
    assert found.mean.dtype == np.float32 and found.kept.dtype == np.int64


def test_recipe_paper_keeps_everything_as_it_is(values: np.ndarray) -> None:
    found = normalisation(TensorPool(values), TOKENS, RECIPES["paper"])
    assert (found.limit, found.norm_limit, found.scale, len(found.kept)) == (math.inf, None, 1.0, TOKENS)
    np.testing.assert_allclose(found.mean, values.astype(np.float64).mean(axis=0), rtol=1e-6)


def test_impossible_settings_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"recipe\.norm_limit: found 0\.001"):
        normalisation(TensorPool(values), TOKENS, Recipe(norm_limit=0.001))
    with pytest.raises(UserError, match="found 70 tokens, expected 71"):
        normalisation(TensorPool(values), TOKENS + 1, STANDARD)
