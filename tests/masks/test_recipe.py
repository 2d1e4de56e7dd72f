"""Masks: degrees, coverage, regeneration and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask, MaskRecipe, read_mask, write_mask
from expander_sae.masks.supports import families
from expander_sae.storage.seals import write_sealed_json

ANY_SHAPE = sorted({one.name for one in families()} - {"girth6", "dose"})
"""Families that exist for every d·n ≥ m."""

GOLDEN = {
    ("expander", 512, 4096, 7, 0): "6978ecd5",
    ("expander", 576, 4608, 100, 0): "c54ce1bf",
    ("bernoulli", 512, 4096, 7, 0): "9e02e692",
    ("clustered", 576, 4608, 100, 0): "b9a9b230",
    ("clustered_cover", 512, 4096, 7, 0): "4cdb3e2a",
    ("right_regular", 576, 4608, 100, 0): "b1314f14",
    ("girth6", 576, 4608, 7, 0): "56cc920a",
    ("min_overlap", 576, 4608, 30, 0): "fc4d79e2",
    ("dose576", 576, 4608, 7, 0): "63238d35",
}


@st.composite
def recipes(draw: st.DrawFn) -> MaskRecipe:
    m = draw(st.integers(1, 24))
    d = draw(st.integers(1, m))
    n = draw(st.integers(max(2, -(-m // d)), 40))
    return MaskRecipe(draw(st.sampled_from(ANY_SHAPE)), m, n, d, draw(st.integers(0, 5)))


@given(recipes())
def test_every_family_has_the_edges_it_promises(recipe: MaskRecipe) -> None:
    mask = recipe.generate()
    assert mask.edges == recipe.d * recipe.n
    assert mask.degrees.min() >= 1
    for column, degree in enumerate(mask.degrees):
        rows = mask.rows[column, :degree]
        assert (np.diff(rows) > 0).all()
        assert rows.min() >= 0 and rows.max() < recipe.m
    if recipe.family != "bernoulli":
        assert (mask.degrees == recipe.d).all()
    if recipe.family not in ("bernoulli", "clustered"):
        assert mask.uncovered_rows() == 0
    if recipe.family in ("clustered_cover", "right_regular", "min_overlap"):
        assert np.ptp(mask.row_degrees()) <= 1
    if recipe.family == "clustered":
        assert mask.uncovered_rows() >= recipe.m % recipe.d
        supports = {tuple(rows) for rows in mask.rows}
        assert len(supports) == min(recipe.n, recipe.m // recipe.d)
        assert len({row for support in supports for row in support}) == len(supports) * recipe.d


@pytest.mark.parametrize(
    ("rows", "degrees", "message"),
    [
        ([[0, 2], [1, 5]], [2, 2], "found row 5, expected 0 to m − 1 = 4"),
        ([[0, 2], [-1, 4]], [2, 2], "found row -1, expected 0 to m − 1 = 4"),
        ([[0, 2], [3, 3]], [2, 2], "rows of column 1, expected strictly ascending ones"),
        ([[2, 0], [1, 3]], [2, 2], "rows of column 0, expected strictly ascending ones"),
        ([[0, 2], [1, 3]], [2, 3], "found degree 3, expected 0 to w = 2"),
        ([[0, 2], [1, 3]], [2, -1], "found degree -1, expected 0 to w = 2"),
        ([[0, 2]], [2], r"found rows of shape \[1, 2\], degrees of \[1\], expected .* n = 2"),
        ([[0.0, 2.0], [1.0, 3.0]], [2, 2], "found rows of float64 and degrees of int64, expected int32"),
    ],
)
def test_rows_that_kernels_would_follow_out_of_bounds_are_refused(
    rows: list[list[float]], degrees: list[int], message: str
) -> None:
    with pytest.raises(UserError, match=f"mask mine: {message}"):
        Mask(MaskRecipe("mine", 5, 2, 2, 0), np.array(rows), np.array(degrees))


def test_what_stands_beyond_a_degree_need_not_ascend() -> None:
    Mask(MaskRecipe("mine", 5, 2, 2, 0), np.array([[0, 2, 4], [3, 0, 0]], np.int32), np.array([3, 1]))


@given(recipes())
def test_regeneration_is_exact(recipe: MaskRecipe) -> None:
    assert recipe.generate().sha256 == recipe.generate().sha256


@pytest.mark.parametrize("key", GOLDEN)
def test_masks_are_those_of_this_stage_version(key: tuple[str, int, int, int, int]) -> None:
    assert MaskRecipe(*key).generate().sha256.startswith(GOLDEN[key])


def overlaps(mask: Mask) -> np.ndarray:
    """Rows shared by each pair of columns."""
    member = np.zeros((mask.recipe.n, mask.recipe.m), dtype=np.float32)
    np.put_along_axis(member, mask.rows.astype(np.int64), 1, axis=1)
    return (member @ member.T)[np.triu_indices(mask.recipe.n, 1)]


@pytest.mark.parametrize(("m", "n", "d"), [(512, 4096, 7), (576, 4608, 7), (29, 20, 5), (17, 20, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_girth6_columns_share_at_most_one_row(m: int, n: int, d: int, seed: int) -> None:
    mask = MaskRecipe("girth6", m, n, d, seed).generate()
    assert overlaps(mask).max() == 1
    assert mask.uncovered_rows() == 0
    assert np.ptp(mask.row_degrees()) <= max(3, 0.3 * n * d / m)


def test_girth6_prints_the_bound_where_it_cannot_be() -> None:
    with pytest.raises(
        UserError, match=r"n = 4608 columns of d = 30 .* at most m\(m−1\)/\(d\(d−1\)\) = 380 can"
    ):
        MaskRecipe("girth6", 576, 4608, 30, 0).generate()


def test_min_overlap_shares_less_than_chance() -> None:
    counts = {
        family: np.maximum(overlaps(MaskRecipe(family, 96, 300, 8, 0).generate()) - 1, 0).sum()
        for family in ("min_overlap", "right_regular")
    }
    assert counts["min_overlap"] < 0.7 * counts["right_regular"]


@pytest.mark.parametrize(("d", "supports"), [(6, 8), (6, 32), (6, 96), (1, 48), (20, 12)])
def test_a_dose_has_its_supports_and_balanced_rows(d: int, supports: int) -> None:
    n = 96
    mask = MaskRecipe(f"dose{supports}", 48, n, d, 0).generate()
    unique, uses = np.unique(mask.rows, axis=0, return_counts=True)
    assert len(unique) == supports
    assert np.ptp(uses) <= 1
    assert np.ptp(mask.row_degrees()) <= -(-n // supports)
    if (d * supports) % 48 == 0 and n % supports == 0:
        assert np.ptp(mask.row_degrees()) == 0


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
        (MaskRecipe("dose0", 8, 8, 8, 0), "mask family: found 'dose0', expected one of"),
        (MaskRecipe("dose9", 8, 8, 4, 0), "dose9: expected 1 to n = 8 supports"),
        (MaskRecipe("dose4", 3, 8, 3, 0), "dose4: only 1 supports of 3 among 3 rows exist"),
        (MaskRecipe("dose2", 16, 64, 4, 0), "d·n: found 4·2 = 8, expected at least m = 16"),
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
    with pytest.raises(UserError, match=f"{path}: altered or cut short"):
        read_mask(path)
    write_sealed_json(path, record)
    with pytest.raises(UserError, match=f"{path}: mask sha256"):
        read_mask(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="found no 'recipe', expected a mask file"):
        read_mask(path)
