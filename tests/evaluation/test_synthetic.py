"""Planted codes: their law, the comparison against sets, and published cells."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.evaluation.synthetic import (
    Cell,
    compare,
    planted_trials,
    recovery,
    signed_dictionary,
)
from expander_sae.evaluation.synthetic_tables import joint_standard_error
from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.niht import niht

PUBLISHED = Path(__file__).parents[2] / "resources" / "paper_synthetic_omp.csv"


def test_columns_are_signs_on_the_mask() -> None:
    dictionary = signed_dictionary(32, 500, 4, seed=1, backend="torch")
    assert torch.equal(dictionary.values.abs(), torch.full((500, 4), 0.5, dtype=torch.float64))
    torch.testing.assert_close(dictionary.norms(), torch.ones(500, dtype=torch.float64))
    assert abs(float(dictionary.values.sign().mean())) < 4 / math.sqrt(2000)
    other = signed_dictionary(32, 500, 4, seed=2, backend="torch")
    assert not torch.equal(dictionary.rows, other.rows) and not torch.equal(dictionary.values, other.values)


def test_trials_follow_the_stated_law() -> None:
    cell = Cell(64, 128, 4, 5, 0.05)
    dictionary = signed_dictionary(64, 128, 4, 0, "torch")
    parts = list(planted_trials(dictionary, cell, 950, seed=0))
    assert [len(part[1]) for part in parts] == [100] * 9 + [50]
    index, value = torch.cat([p[0].index for p in parts]), torch.cat([p[0].value for p in parts])
    clean, observed = torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])
    assert all(len(set(row)) == 5 for row in index.tolist())
    uses = torch.bincount(index.flatten(), minlength=128).double()
    expected = 950 * 5 / 128
    assert float(((uses - expected) ** 2 / expected).sum()) < 128 + 5 * math.sqrt(2 * 128)
    assert abs(float(value.mean())) < 4 / math.sqrt(4750) and abs(float(value.var()) - 1) < 0.1
    columns = dictionary.columns(torch.arange(128))
    torch.testing.assert_close(clean, (columns[index] * value[:, :, None]).sum(1))
    ratio = (observed - clean).square().sum(1) / clean.square().sum(1)
    assert abs(float(ratio.mean()) / 0.05**2 - 1) < 0.05


def test_more_trials_keep_the_first_ones() -> None:
    cell = Cell(16, 40, 3, 2, 0.0)
    dictionary = signed_dictionary(16, 40, 3, 0, "torch")
    few = next(iter(planted_trials(dictionary, cell, 30, seed=4)))
    many = next(iter(planted_trials(dictionary, cell, 250, seed=4)))
    assert torch.equal(few[0].index, many[0].index[:30]) and torch.equal(few[2], many[2][:30])


def test_compare_equals_sets_and_dense_vectors() -> None:
    generator = np.random.default_rng(0)
    true = SparseCode(torch.tensor([[1, 2, 3]] * 5), torch.from_numpy(generator.standard_normal((5, 3))))
    index = torch.tensor([[3, 1, 2], [1, 2, -1], [1, 2, 4], [-1, -1, -1], [2, 3, 1]])
    value = torch.from_numpy(generator.standard_normal((5, 3))) * (index >= 0)
    recovered, overlap, error = compare(true, SparseCode(index, value))
    assert recovered.tolist() == [True, False, False, False, True]
    assert overlap.tolist() == pytest.approx([1, 2 / 3, 2 / 3, 0, 1])
    for b in range(5):
        x, y = np.zeros(6), np.zeros(6)
        x[true.index[b]] = true.value[b]
        for j, v in zip(index[b].tolist(), value[b].tolist(), strict=True):
            y[j if j >= 0 else 5] += v
        assert float(error[b]) == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x))


def test_recovery_of_easy_and_hopeless_cells() -> None:
    easy = recovery(Cell(64, 128, 8, 2, 0.0), [0, 1], 40, backend="torch")
    assert easy.recovered.shape == (2, 40) and easy.rate == 1
    assert easy.code_error.max() < 1e-10
    hopeless = recovery(Cell(8, 128, 4, 6, 0.0), [0], 40, backend="torch")
    assert hopeless.rate < 0.2
    # Signs of the codes matter to signed selection, which the paper's check does not use.
    assert recovery(Cell(64, 128, 8, 2, 0.0), [0], 40, selection="signed", backend="torch").rate < 0.6
    other = recovery(Cell(64, 128, 8, 2, 0.0), [0], 40, pursuit=niht, backend="torch")
    assert other.rate > 0.5


def test_arguments_out_of_range() -> None:
    with pytest.raises(UserError, match="k: found 41"):
        recovery(Cell(16, 40, 3, 41, 0.0), [0], 5)
    with pytest.raises(UserError, match="sigma"):
        recovery(Cell(16, 40, 3, 4, math.nan), [0], 5)
    with pytest.raises(UserError, match="seeds"):
        recovery(Cell(16, 40, 3, 4, 0.0), [0, 0], 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "k", "sigma"),
    [(7, 4, 0.0), (7, 16, 0.0), (30, 4, 0.0), (30, 16, 0.0), (7, 32, 0.01), (30, 16, 0.05)],
)
def test_published_cells(d: int, k: int, sigma: float) -> None:
    """Three masks of 100 trials each, as published: within three joint standard errors."""
    with PUBLISHED.open(newline="") as file:
        rows = {(int(r["d"]), int(r["k"]), float(r["sigma"])): r for r in csv.DictReader(file)}
    published = float(rows[d, k, sigma]["support_recovery_rate"])
    found = recovery(Cell(512, 4096, d, k, sigma), [0, 1, 2], 100)
    assert abs(found.rate - published) <= 3 * joint_standard_error(found.rate, 300, published)
    assert found.code_error.mean() == pytest.approx(float(rows[d, k, sigma]["code_error"]), abs=0.002)
