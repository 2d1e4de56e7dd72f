"""Rows of planted codes, and their agreement with a published table."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expander_sae.errors import UserError
from expander_sae.evaluation.synthetic import Cell, recovery
from expander_sae.evaluation.synthetic_tables import (
    Comparison,
    compare_published,
    joint_standard_error,
    mask_variance_ratio,
    write_agreement,
    write_synthetic,
)
from expander_sae.measurements import tables

SPEC = {"m": 32, "n": 64, "d": 4, "k": [2, 6], "sigma": [0, 0.05], "masks": 3, "trials": 20}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(SPEC, folder / "metrics.parquet", folder / "documents.parquet", backend="torch")
    return folder


def published(path: Path, rates: dict[tuple[float, int], float], n: int = 64) -> Path:
    rows = [
        {"m": 32, "n": n, "sigma": sigma, "d": 4, "k": k, "support_recovery_rate": rate}
        for (sigma, k), rate in rates.items()
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_rows_are_the_rates_of_each_mask(written: Path) -> None:
    frame = tables.read_metrics(written / "metrics.parquet")
    documents = tables.read_documents(written / "documents.parquet")
    assert len(frame) == 2 * 2 * 3 * 2 and set(frame["model"]) == {"synthetic"}
    assert set(frame["split"]) == {"sigma0", "sigma0.05"} and set(frame["inference"]) == {"omp_absolute"}
    for k in (2, 6):
        for sigma, split in ((0.0, "sigma0"), (0.05, "sigma0.05")):
            found = recovery(Cell(32, 64, 4, k, sigma), range(3), 20, backend="torch")
            rows = frame[(frame["k"] == k) & (frame["split"] == split)].sort_values("seed")
            for metric, expected in (("exact_recovery", found.recovered), ("support_overlap", found.overlap)):
                mine = rows[rows["metric"] == metric]["value"]
                np.testing.assert_allclose(mine, expected.mean(axis=1))
            if sigma == 0:
                trials = documents[documents["k"] == k].sort_values(["seed", "document"])
                assert trials["sum"].tolist() == found.recovered.astype(float).ravel().tolist()
                assert trials["document"].tolist() == list(range(20)) * 3
    assert set(documents["split"]) == {"sigma0"} and (documents["count"] == 1).all()
    assert frame[frame["metric"] == "support_overlap"]["value"].nunique() > 3


def test_overlap_is_at_least_the_rate_and_falls_with_k(written: Path) -> None:
    frame = tables.read_metrics(written / "metrics.parquet")
    frame = frame.set_index(["metric", "k", "split", "seed"]).sort_index()
    rate, overlap = frame.loc["exact_recovery", "value"], frame.loc["support_overlap", "value"]
    assert (overlap >= rate).all() and overlap.loc[2].mean() > overlap.loc[6].mean()


def test_joint_standard_error() -> None:
    pooled = (600 + 150 + 2) / 1304
    expected = math.sqrt(pooled * (1 - pooled) * (1 / 1000 + 1 / 300))
    assert joint_standard_error(0.6, 1000, 0.5) == pytest.approx(expected)
    assert 0 < joint_standard_error(1.0, 1000, 1.0) < 0.003
    assert joint_standard_error(0.0, 1000, 0.0) == pytest.approx(joint_standard_error(1.0, 1000, 1.0))


def test_two_joint_standard_errors_hold_back_a_twentieth() -> None:
    """Of equal true rates in the middle, about 95 % of pairs are within two; at the ends, more."""
    rng = np.random.default_rng(0)
    for truth, least, most in ((0.5, 0.93, 0.975), (0.9, 0.93, 0.98), (0.999, 0.95, 1.0)):
        ours, theirs = rng.binomial(1000, truth, 4000) / 1000, rng.binomial(300, truth, 4000) / 300
        within = [
            abs(a - b) <= 2 * joint_standard_error(a, 1000, b) for a, b in zip(ours, theirs, strict=True)
        ]
        assert least < np.mean(within) <= most


def test_masks_that_differ_show_in_the_ratio() -> None:
    rng = np.random.default_rng(1)

    def cells(spread: float) -> list[Comparison]:
        truth = np.clip(rng.normal(0.5, spread, (300, 5)), 0, 1)
        rates = rng.binomial(200, truth) / 200
        return [Comparison(7, 4, 0.0, 0.5, tuple(row), 200) for row in rates]

    assert mask_variance_ratio(cells(0.0)) == pytest.approx(1, abs=0.2)
    assert mask_variance_ratio(cells(0.05)) == pytest.approx(1 + 0.05**2 * 200 / 0.25, abs=0.5)
    assert math.isnan(mask_variance_ratio([Comparison(7, 4, 0.0, 1.0, (1.0, 1.0), 200)]))


def test_agreement_with_a_published_table(written: Path, tmp_path: Path) -> None:
    ours = tables.read_metrics(written / "metrics.parquet")
    rates = ours[ours["metric"] == "exact_recovery"].groupby(["split", "k"])["value"].mean()
    shifts = {("sigma0", 2): 0.0, ("sigma0", 6): -0.3, ("sigma0.05", 2): -0.01, ("sigma0.05", 6): 0.0}
    table = {
        (float(split.removeprefix("sigma")), k): rates[split, k] + shift
        for (split, k), shift in shifts.items()
    }
    path = published(tmp_path / "published.csv", table)
    compared = compare_published(ours, pd.read_csv(path), 20)
    assert len(compared) == 4 and all(len(cell.rates) == 3 for cell in compared)
    write_agreement([written / "metrics.parquet"], path, 20, tmp_path / "out.parquet")
    frame = tables.read_metrics(tmp_path / "out.parquet")
    found = dict(zip(frame["metric"], frame["value"], strict=True))
    assert found["recovery_largest_difference"] == pytest.approx(0.3)
    assert found["recovery_mean_difference"] == pytest.approx(0.31 / 4)
    assert found["recovery_cells"] == 4 and found["recovery_within_two_se"] == 3
    assert set(frame["split"]) == {"all_cells"} and set(frame["d"]) == set(frame["k"]) == {0}


def test_a_cell_that_was_not_run_leaves_no_agreement(written: Path, tmp_path: Path) -> None:
    path = published(tmp_path / "published.csv", {(0.0, 2): 1.0, (0.0, 3): 1.0})
    write_agreement([written / "metrics.parquet"], path, 20, tmp_path / "out.parquet")
    assert tables.read_metrics(tmp_path / "out.parquet").empty
    path = published(tmp_path / "other.csv", {(0.0, 2): 1.0}, n=128)
    write_agreement([written / "metrics.parquet"], path, 20, tmp_path / "out.parquet")
    assert tables.read_metrics(tmp_path / "out.parquet").empty


def test_a_published_table_that_is_none_is_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        write_agreement([written / "metrics.parquet"], tmp_path / "absent.csv", 20, tmp_path / "out.parquet")
    (tmp_path / "short.csv").write_text("m,n\n1,2\n")
    with pytest.raises(UserError, match="column 'sigma' is missing"):
        write_agreement([written / "metrics.parquet"], tmp_path / "short.csv", 20, tmp_path / "out.parquet")
