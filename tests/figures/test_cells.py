"""Cells, pairs of cells, and what stands beside them from the paper."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expander_sae.figures.budgets_and_places import retention
from expander_sae.figures.fidelity import budget_cell, gain
from expander_sae.figures.layout import short
from expander_sae.figures.supports import distinct_supports
from expander_sae.figures.verdicts import short_value, thresholds
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.measurements.cells import Book, Cell, half_interval
from expander_sae.measurements.published import Published, Value
from tests.figures import study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def view():
    return Book(study.study()).views[0]


def test_the_interval_is_student_s():
    assert half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(half_interval([1.0]))


def test_the_main_budget_and_k_are_those_with_most_runs(view):
    assert (view.tokens, view.steps, view.k, view.place.layer) == (200_000, 5000, 64, 15)
    assert view.ds() == [7, 30, 100]
    assert view.supports()[0] == "expander"
    assert view.supports()[-2:] == ["dose144", "dose576"]


def test_a_difference_pairs_seeds_and_uses_shared_ones_only():
    mine, its = Cell({0: 1.0, 1: 2.0, 2: 9.0}, 3), Cell({0: 0.5, 1: 1.0, 3: 0.0}, 3)
    assert dict(mine.less(its).values) == {0: 0.5, 1: 1.0}
    assert not mine.less(Cell())
    assert mine.share_of(its).values[1] == 2.0


def test_diverged_seeds_and_values_that_are_not_finite_are_in_no_mean():
    frame = study.study(later=False)
    mine = (frame["support"] == "expander") & (frame["d"] == 7)
    frame.loc[mine & (frame["seed"] == 1) & (frame["metric"] == "diverged"), "value"] = 1.0
    frame.loc[mine & (frame["seed"] == 1) & (frame["metric"] == "relative_error"), "value"] = 8.8
    frame.loc[mine & (frame["seed"] == 2) & (frame["metric"] == "relative_error"), "value"] = math.inf
    (view,) = Book(frame).views
    cell = view.cell("relative_error", "expander", 7)
    assert (set(cell.values), cell.asked, cell.diverged) == ({0}, 3, 1)
    assert cell.mean < 1


def test_a_pursuit_that_diverges_leaves_the_encoder_its_seed():
    frame = study.study(later=False)
    mine = (frame["support"] == "expander") & (frame["d"] == 7)
    flag = frame[mine & (frame["seed"] == 1) & (frame["metric"] == "diverged")].iloc[:1]
    pursuit = flag.assign(inference="omp", value=1.0)
    (view,) = Book(pd.concat([frame, pursuit], ignore_index=True)).views
    by_omp = view.cell("relative_error", "expander", 7, inference="omp")
    encoder = view.cell("relative_error", "expander", 7)
    assert (set(encoder.values), encoder.diverged) == ({0, 1, 2}, 0)
    assert (set(by_omp.values), by_omp.asked, by_omp.diverged) == ({0, 2}, 3, 1)


def test_a_run_that_is_not_finite_is_counted():
    frame = study.study(later=False)
    mine = (frame["support"] == "expander") & (frame["d"] == 7) & (frame["seed"] == 1)
    kept = ~mine | (frame["metric"] == "diverged") | (frame["split"] == "none")
    frame.loc[mine & (frame["metric"] == "diverged"), "value"] = 1.0
    (view,) = Book(frame[kept]).views
    cell = view.cell("relative_error", "expander", 7)
    assert (set(cell.values), cell.asked, cell.diverged) == ({0, 2}, 3, 1)


def test_gain_and_matched_budgets_pick_the_right_runs(view):
    seeds = gain(view, "expander", 7).values
    own, omp = (view.cell("relative_error", "expander", 7, inference=i) for i in ("encoder", "omp"))
    assert seeds[1] == pytest.approx(1 - omp.values[1] / own.values[1])
    frame = view.book.runs
    assert (
        budget_cell(view, "decoder", "ce_recovered", 30, "encoder").values
        == view.cell("ce_recovered", "dense", n=240).values
    )
    assert not budget_cell(view, "decoder", "ce_recovered", 7, "encoder"), "56 features, at most 2k"
    short = budget_cell(view, "compute", "ce_recovered", 30, "encoder")
    assert short.mean < view.cell("ce_recovered", "dense").mean - 0.04
    assert any(run.steps == round(5000 * 30 / 576) for run in frame)
    assert (
        budget_cell(view, "total", "ce_recovered", 100, "encoder").values
        == view.cell("ce_recovered", "dense", n=400, encoder="warm_tied").values
    )


def test_retention_divides_by_the_dense_mean():
    kept = retention(Cell({0: 0.8, 1: 0.84}, 2), Cell({0: 0.9, 5: 1.1}, 2))
    assert kept.values == pytest.approx({0: 0.8, 1: 0.84})
    assert not retention(Cell({0: 0.8}, 1), Cell())


@pytest.mark.parametrize(
    ("support", "expected"),
    [("dose144", 144), ("clustered_cover", 576), ("right_regular", 4608), ("expander", 4608),
     ("bernoulli", None), ("dosed", None)],
)  # fmt: skip
def test_distinct_supports(support, expected):
    assert distinct_supports(support, 576, 4608, 7) == expected


@pytest.mark.parametrize(
    ("support", "m", "n", "d"),
    [("clustered_cover", 36, 72, d) for d in (7, 10, 36)]
    + [("clustered_cover", 36, 20, 7), ("dose6", 36, 72, 7), ("dose6", 36, 72, 10), ("dose6", 36, 20, 7)],
)
def test_distinct_supports_are_those_of_the_mask(support, m, n, d):
    rows = MaskRecipe(support, m, n, d, 0).generate().rows
    assert len(np.unique(np.sort(rows, axis=1), axis=0)) == distinct_supports(support, m, n, d)


def test_published_values_are_found_for_the_same_model_only(view):
    published = Published(pd.read_csv(ROOT / "resources" / "paper_figures.csv"))
    assert published.value(view, "ce_recovered", "expander", 7) is None
    assert not published.knows(view)
    frame = study.study(later=False).assign(model="pythia-70m-deduped-0a1b2c", layer=3, m=512)
    frame = frame.assign(n=frame["n"].replace(4608, 4096), d=frame["d"].replace(576, 512))
    (theirs,) = Book(frame).views
    found = published.value(theirs, "relative_error", "expander", 7)
    assert found is not None and found.mean == pytest.approx(0.532, abs=5e-4)
    assert published.knows(theirs)
    assert published.value(theirs, "relative_error", "expander", 8) is None


def test_the_published_interval_undoes_the_population_s_standard_deviation():
    values = [0.50, 0.53, 0.56]
    mean = sum(values) / 3
    population = math.sqrt(sum((value - mean) ** 2 for value in values) / 3)
    assert Value(mean, population, 3).half == pytest.approx(half_interval(values))
    assert math.isnan(Value(mean, math.nan, 3).half)


def test_numbers_on_axes():
    assert [short(x) for x in (7, 1000, 1024, 8192, 30_000, 122_880, 2_654_208)] == [
        "7", "1k", "1,024", "8,192", "30k", "122.9k", "2.654M",
    ]  # fmt: skip


def test_thresholds_are_read_back():
    assert thresholds("at least 0.15 and at most 0.25") == [("at least", 0.15), ("at most", 0.25)]
    assert thresholds("above 0") == [("above", 0.0)]
    assert [short_value(value) for value in (0.0, -0.01894, 0.9, 87.2, 12345.0)] == [
        "0", "−0.0189", "0.900", "87.2", "1.23e+04",
    ]  # fmt: skip
