"""CoSaMP against the published iteration with NumPy's least squares, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.cosamp import cosamp, least_squares
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
    """Needell and Tropp (2009), one sample, columns [n, m]; the iterate with the smallest residual."""
    x = best = np.zeros(len(columns))
    for _ in range(iterations):
        proxy = threshold(columns @ (h - x @ columns), 2 * k, selection)
        merged = np.flatnonzero((proxy != 0) | (x != 0))
        b = np.zeros_like(x)
        b[merged] = np.linalg.lstsq(columns[merged].T, h, rcond=None)[0]
        x = threshold(b, k, selection)
        if np.linalg.norm(h - x @ columns) < np.linalg.norm(h - best @ columns):
            best = x
    return best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", ["signed", "absolute"])
@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_equals_the_published_iteration(kind: str, selection: str, iterations: int) -> None:
    dictionary = dictionary_of(kind, *random_columns(40, 120, 6, 0), 40)
    target = normal(12, 40, seed=1)
    code = cosamp(dictionary, target, 5, selection, iterations)
    columns = dictionary.columns(torch.arange(120)).numpy()
    expected = np.stack([reference(columns, h, 5, selection, iterations) for h in target.numpy()])
    np.testing.assert_allclose(dense_code(code, 120), expected, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recovers_planted_codes(kind: str, dtype: torch.dtype) -> None:
    values, rows = random_columns(128, 256, 10, 2)
    dictionary = dictionary_of(kind, values.to(dtype), rows, 128)
    for selection in ("signed", "absolute"):
        code, target = planted(dictionary, 20, 6, seed=3, positive=selection == "signed")
        found = cosamp(dictionary, target, 6, selection)
        atol = 1e-9 if dtype == torch.float64 else 1e-4
        np.testing.assert_allclose(dense_code(found, 256), dense_code(code, 256), atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_least_squares(kind: str) -> None:
    dictionary = dictionary_of(kind, *random_columns(30, 60, 5, 4), 30)
    index = torch.tensor([[3, 7, 11, -1, 50], [0, -1, -1, -1, 2], [-1] * 5])
    target = normal(3, 30, seed=5)
    found = least_squares(dictionary, target, index)
    for b, row in enumerate(index.tolist()):
        held = [j for j in row if j >= 0]
        columns = dictionary.columns(torch.tensor(held, dtype=torch.int64)).numpy()
        expected = np.linalg.lstsq(columns.T, target[b].numpy(), rcond=None)[0] if held else []
        np.testing.assert_allclose(found[b][index[b] >= 0], expected, atol=1e-10)
    assert not found[index < 0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_columns_share_their_weight(kind: str, dtype: torch.dtype) -> None:
    values, rows = random_columns(12, 8, 3, 6)
    dictionary = dictionary_of(kind, values.repeat(4, 1).to(dtype), rows.repeat(4, 1), 12)
    target = normal(9, 12, seed=7).to(dtype)
    index = torch.arange(32).expand(9, 32).contiguous()
    shortest = np.linalg.pinv(dictionary.columns(torch.arange(32)).double().numpy().T, rcond=1e-6)
    found = least_squares(dictionary, target, index)
    atol = 5e-3 if dtype == torch.float32 else 1e-6
    np.testing.assert_allclose(found.numpy(), target.numpy() @ shortest.T, atol=atol)
    code = cosamp(dictionary, target, 20, "absolute")
    assert code.value.isfinite().all()
    assert ((target - dictionary.synthesize(code)).norm(dim=1) <= target.norm(dim=1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_zero_one_sided_and_broken_targets(kind: str) -> None:
    values, rows = torch.ones(6, 1, dtype=torch.float64), torch.arange(6, dtype=torch.int32)[:, None]
    values[5] = 0
    dictionary = dictionary_of(kind, values, rows, 6)
    target = torch.tensor(
        [[0.0] * 6, [-1.0] * 6, [-1.0, 0.0, 3.0, 0.0, 2.0, 0.0], [torch.nan] * 6], dtype=torch.float64
    )
    signed = cosamp(dictionary, target, 3)
    assert signed.index.tolist() == [[-1] * 3, [-1] * 3, [2, 4, -1], [-1] * 3]
    torch.testing.assert_close(signed.value[2], torch.tensor([3.0, 2.0, 0.0]).double())
    absolute = cosamp(dictionary, target[2:3], 3, "absolute")
    assert absolute.index.tolist() == [[2, 4, 0]]
    torch.testing.assert_close(absolute.value[0], torch.tensor([3.0, 2.0, -1.0]).double())


def test_never_worse_than_nothing_where_it_wanders() -> None:
    """Coherent columns and 3k > m."""
    values, rows = random_columns(16, 60, 4, 8)
    dictionary = dictionary_of("torch", values.abs(), rows, 16)
    target = normal(20, 16, seed=9)
    code = cosamp(dictionary, target, 8)
    assert ((target - dictionary.synthesize(code)).norm(dim=1) <= target.norm(dim=1)).all()


def test_an_empty_batch_and_arguments_out_of_range() -> None:
    dictionary = dictionary_of("torch", *random_columns(8, 10, 2, 0), 8)
    assert isinstance(cosamp(dictionary, normal(0, 8, seed=0), 2), SparseCode)
    with pytest.raises(ValueError, match="iterations"):
        cosamp(dictionary, normal(2, 8, seed=0), 2, iterations=0)
    with pytest.raises(ValueError, match="k = 11"):
        cosamp(dictionary, normal(2, 8, seed=0), 11)
