"""Masks: degrees, coverage, regeneration and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expander_sae.errors import UserError
from expander_sae.masks import FAMILIES, Mask, MaskRecipe, read_mask, write_mask

GOLDEN = {
    ("expander", 512, 4096, 7, 0): "6978ecd5",
    ("expander", 576, 4608, 100, 0): "c54ce1bf",
    ("bernoulli", 512, 4096, 7, 0): "9e02e692",
    ("clustered", 576, 4608, 100, 0): "b9a9b230",
    ("clustered_cover", 512, 4096, 7, 0): "4cdb3e2a",
}


@st.composite
def recipes(draw: st.DrawFn) -> MaskRecipe:
    m = draw(st.integers(1, 24))
    d = draw(st.integers(1, m))
    n = draw(st.integers(max(2, -(-m // d)), 40))
    return MaskRecipe(draw(st.sampled_from(sorted(FAMILIES))), m, n, d, draw(st.integers(0, 5)))


@given(recipes())
def test_every_family_has_the_edges_it_promises(recipe: MaskRecipe) -> None:
    mask = recipe.generate()
    assert mask.edges == recipe.d * recipe.n
    assert mask.degrees.min() >= 1
    for column, degree in enumerate(mask.degrees):
        rows = mask.rows[column, :degree]
        assert (np.diff(rows) > 0).all()
        assert 0 <= rows[0] and rows[-1] < recipe.m
    if recipe.family != "bernoulli":
        assert (mask.degrees == recipe.d).all()
    if recipe.family in ("expander", "clustered_cover"):
        assert mask.uncovered_rows() == 0
    if recipe.family == "clustered_cover":
        assert np.ptp(mask.row_degrees()) <= 1
    if recipe.family == "clustered":
        assert mask.uncovered_rows() >= recipe.m % recipe.d
        supports = {tuple(rows) for rows in mask.rows}
        assert len(supports) == min(recipe.n, recipe.m // recipe.d)
        assert len({row for support in supports for row in support}) == len(supports) * recipe.d


@given(recipes())
def test_regeneration_is_exact(recipe: MaskRecipe) -> None:
    assert recipe.generate().sha256 == recipe.generate().sha256


@pytest.mark.parametrize("key", GOLDEN)
def test_masks_are_those_of_this_stage_version(key: tuple[str, int, int, int, int]) -> None:
    assert MaskRecipe(*key).generate().sha256.startswith(GOLDEN[key])


def test_seeds_and_shapes_have_streams_of_their_own() -> None:
    first = MaskRecipe("expander", 64, 256, 7, 0).generate()
    assert first.sha256 != MaskRecipe("expander", 64, 256, 7, 1).generate().sha256
    overlap = (first.rows == MaskRecipe("expander", 64, 256, 7, 1).generate().rows).mean()
    assert overlap < 0.2


@pytest.mark.parametrize(("m", "d"), [(64, 7), (64, 50)])
def test_supports_are_uniform(m: int, d: int) -> None:
    """Row degrees and pair overlaps have the moments of uniform d-subsets, within five standard errors."""
    n = 20_000
    mask = MaskRecipe("expander", m, n, d, 3).generate()
    p = d / m
    degrees = mask.row_degrees()
    assert abs(degrees - n * p).max() < 5 * np.sqrt(n * p * (1 - p))
    member = np.zeros((n, m), dtype=bool)
    np.put_along_axis(member, mask.rows.astype(np.int64), True, axis=1)
    overlap = (member[: n // 2] & member[n // 2 :]).sum(1)
    variance = d * p * (1 - p) * (m - d) / (m - 1)
    assert abs(overlap.mean() - d * p) < 5 * np.sqrt(variance / (n // 2))


def test_bernoulli_degrees_are_spread_like_binomials() -> None:
    mask = MaskRecipe("bernoulli", 512, 4096, 30, 0).generate()
    expected = 30 * (1 - 30 / 512)
    assert abs(mask.degrees.var() - expected) < 0.15 * expected


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (MaskRecipe("expander", 100, 10, 7, 0), "d·n: found 7·10 = 70, expected at least m = 100"),
        (MaskRecipe("clustered_cover", 100, 10, 7, 0), "d·n: found 7·10 = 70"),
        (MaskRecipe("expander", 8, 100, 9, 0), "d: found 9, expected 1 to m = 8"),
        (MaskRecipe("expander", 8, 1, 8, 0), "n: found 1, expected at least 2"),
        (MaskRecipe("random", 8, 8, 8, 0), "mask family: found 'random', expected one of"),
    ],
)
def test_impossible_masks_are_refused(recipe: MaskRecipe, message: str) -> None:
    with pytest.raises(UserError, match="^" + message.replace("(", r"\(")):
        recipe.generate()


def test_a_mask_file_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "mask.json"
    spec = {"family": "bernoulli", "m": 16, "n": 64, "d": 3, "seed": 1}
    write_mask(spec, path)
    mask: Mask = read_mask(path)
    assert mask.sha256 == MaskRecipe(**spec).generate().sha256
    record = json.loads(path.read_text())
    record["recipe"]["seed"] = 2
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"{path}: mask sha256"):
        read_mask(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="not a mask file"):
        read_mask(path)
