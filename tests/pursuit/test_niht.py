"""NIHT against the published iteration on whole vectors, in float64 NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from expander_sae.model.dictionary import Dictionary, SparseCode
from expander_sae.pursuit.niht import niht
from tests.pursuit.problems import (
    KINDS,
    dense_code,
    dictionary_of,
    normal,
    planted,
    random_columns,
    threshold,
)


def reference(columns: np.ndarray, h: np.ndarray, k: int, selection: str, iterations: int) -> np.ndarray:
    """Blumensath and Davies (2010), one sample, columns [n, m]."""
    x = np.zeros(len(columns))
    for _ in range(iterations):
        g = columns @ (h - x @ columns)
        support = x != 0
        if not support.any():
            support = threshold(g, k, selection) != 0
        restricted = np.where(support, g, 0)
        step = (restricted @ restricted) / np.sum((restricted @ columns) ** 2)
        while True:
            new = threshold(x + step * g, k, selection)
            change = new - x
            if ((new != 0) == (x != 0)).all():
                break
            if step <= 0.99 * (change @ change) / np.sum((change @ columns) ** 2):
                break
            step /= 2
        x = new
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", ["signed", "absolute"])
@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_equals_the_published_iteration(kind: str, selection: str, iterations: int) -> None:
    dictionary = dictionary_of(kind, *random_columns(40, 120, 6, 0), 40)
    target = normal(12, 40, seed=1)
    code = niht(dictionary, target, 5, selection, iterations, stagnation=0.0)
    columns = dictionary.columns(torch.arange(120)).numpy()
    expected = np.stack([reference(columns, h, 5, selection, iterations) for h in target.numpy()])
    np.testing.assert_allclose(dense_code(code, 120), expected, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", ["signed", "absolute"])
def test_recovers_planted_codes(kind: str, selection: str) -> None:
    dictionary = dictionary_of(kind, *random_columns(128, 256, 10, 2), 128)
    code, target = planted(dictionary, 20, 4, seed=3, positive=selection == "signed")
    found = niht(dictionary, target, 4, selection, iterations=200)
    np.testing.assert_allclose(dense_code(found, 256), dense_code(code, 256), atol=1e-4)


def test_residual_never_rises() -> None:
    dictionary = dictionary_of("torch", *random_columns(32, 100, 5, 4), 32)
    target = normal(30, 32, seed=5)
    norms = [
        (target - dictionary.synthesize(niht(dictionary, target, 6, iterations=t))).norm(dim=1)
        for t in (1, 2, 5, 20)
    ]
    for earlier, later in itertools.pairwise(norms):
        assert (later <= earlier + 1e-12).all()
    assert (norms[0] < target.norm(dim=1)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_columns_and_more_places_than_rank(kind: str, dtype: torch.dtype) -> None:
    values, rows = random_columns(12, 8, 3, 6)
    dictionary = dictionary_of(kind, values.repeat(4, 1).to(dtype), rows.repeat(4, 1), 12)
    target = normal(9, 12, seed=7).to(dtype)
    code = niht(dictionary, target, 20, "absolute")
    assert code.value.isfinite().all() and code.value.abs().max() < 100
    assert ((target - dictionary.synthesize(code)).norm(dim=1) <= target.norm(dim=1)).all()
    for row in code.index:
        held = row[row >= 0]
        assert held.unique().numel() == held.numel()


@pytest.mark.parametrize("kind", KINDS)
def test_zero_one_sided_and_broken_targets(kind: str) -> None:
    values, rows = torch.ones(5, 1, dtype=torch.float64), torch.arange(5, dtype=torch.int32)[:, None]
    dictionary = dictionary_of(kind, values, rows, 5)
    target = torch.tensor(
        [[0.0] * 5, [-1.0] * 5, [-1.0, 0.0, 3.0, 0.0, 2.0], [torch.nan] * 5], dtype=torch.float64
    )
    signed = niht(dictionary, target, 3)
    assert signed.index.tolist() == [[-1] * 3, [-1] * 3, [2, 4, -1], [-1] * 3]
    assert signed.value.tolist() == [[0] * 3, [0] * 3, [3, 2, 0], [0] * 3]
    absolute = niht(dictionary, target, 3, "absolute")
    assert absolute.index.tolist() == [[-1] * 3, [0, 1, 2], [2, 4, 0], [-1] * 3]
    assert absolute.value[2].tolist() == [3, 2, -1]


def test_every_column_may_be_kept() -> None:
    dictionary = dictionary_of("torch", *random_columns(10, 4, 3, 8), 10)
    code = niht(dictionary, normal(3, 10, seed=9), 4, "absolute", iterations=2000)
    residual = normal(3, 10, seed=9) - dictionary.synthesize(code)
    assert dictionary.correlate(residual).abs().max() < 1e-2


def test_an_empty_batch_and_arguments_out_of_range() -> None:
    dictionary: Dictionary = dictionary_of("torch", *random_columns(8, 10, 2, 0), 8)
    assert isinstance(niht(dictionary, normal(0, 8, seed=0), 2), SparseCode)
    with pytest.raises(ValueError, match="iterations"):
        niht(dictionary, normal(2, 8, seed=0), 2, iterations=0)
    with pytest.raises(ValueError, match="selection"):
        niht(dictionary, normal(2, 8, seed=0), 2, "best")
