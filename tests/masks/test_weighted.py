"""Sets drawn by weights: their distribution, their bits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from expander_sae.errors import UserError
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.masks.weighted import LARGEST, weighted_mask, weighted_subsets, whole
from expander_sae.rng import Integers

RECIPE = MaskRecipe("spectral6", 9, 5000, 3, 0)


def test_pairs_are_drawn_one_after_the_other_without_replacement() -> None:
    """Of weights 3, 2 and 1: by hand 7/12, 4/15 and 3/20; of 40,000 draws, within five standard errors."""
    rows = weighted_subsets(np.array([3, 2, 1]), 40_000, 2, Integers(0, "pairs"))
    for pair, expected in {(0, 1): 7 / 12, (0, 2): 4 / 15, (1, 2): 3 / 20}.items():
        share = (rows == pair).all(axis=1).mean()
        assert abs(share - expected) < 5 * (expected * (1 - expected) / len(rows)) ** 0.5


def test_draws_are_the_same_on_every_machine() -> None:
    mask = weighted_mask(RECIPE, np.array([50, 20, 10, 5, 2, 1]))
    assert mask.rows[:3].tolist() == [[0, 1, 4], [0, 1, 2], [0, 1, 3]]
    assert mask.sha256 == "3d73bac3765f37b61926218681c650764b7db9040b92d7cda5633191db2daade"
    assert (mask.recipe.m, mask.recipe.n, mask.regular) == (6, 5000, True)


def test_as_many_as_there_are_are_all() -> None:
    rows = weighted_subsets(np.array([50, 20, 10, 5, 2, 1]), 9, 6, Integers(0, "all"))
    assert rows.tolist() == [[*range(6)]] * 9


def test_weights_are_whole_and_none_is_zero() -> None:
    assert whole(np.array([8.0, 4.0, 0.0])).tolist() == [LARGEST, round(LARGEST / 2), 1]


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, 0], [1, 1, 70_000], [[1, 1, 1]]])
def test_weights_that_are_none_are_refused(weights: list) -> None:
    with pytest.raises(UserError, match=r"weights of spectral6: .* from 1 to 65,535"):
        weighted_mask(RECIPE, np.array(weights))


def test_each_bound_of_several_is_kept() -> None:
    bounds = np.array([1, 2, 1000] * 500)
    drawn = Integers(0, "bounds").below(bounds, len(bounds))
    assert (drawn < bounds).all() and drawn.max() > 500
    for place, bound in enumerate(bounds[:3].tolist()):
        assert drawn[place] == Integers(0, "bounds").below(bound, place + 1)[place]
