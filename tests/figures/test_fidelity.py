"""Estimates that are made of others: gains, matched budgets, retention, the steps of a dose."""

import numpy as np
import pytest

from expander_sae.figures.fidelity import budget_cell, gain
from expander_sae.figures.places import retention
from expander_sae.figures.plots import short
from expander_sae.figures.supports import dose
from expander_sae.figures.verdicts import short_value, thresholds
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.masks.supports import described
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results
from tests.figures import study


@pytest.fixture(scope="module")
def view():
    return Results(study.study()).views[0]


def test_gain_and_matched_budgets_pick_the_right_runs(view):
    seeds = gain(view, "expander", 7, 64).values
    own, omp = (view.estimate("relative_error", "expander", 7, inference=i) for i in ("encoder", "omp"))
    assert seeds[1] == pytest.approx(1 - omp.values[1] / own.values[1])
    assert (
        budget_cell(view, "decoder", "ce_recovered", 30, "encoder").values
        == view.estimate("ce_recovered", "dense", n=240).values
    )
    assert not budget_cell(view, "decoder", "ce_recovered", 7, "encoder"), "56 features, at most 2k"
    shorter = budget_cell(view, "compute", "ce_recovered", 30, "encoder")
    assert shorter.mean < view.estimate("ce_recovered", "dense").mean - 0.04
    assert any(cell.steps == round(5000 * 30 / 576) for cell in view.cells)
    assert (
        budget_cell(view, "total", "ce_recovered", 100, "encoder").values
        == view.estimate("ce_recovered", "dense", n=400, encoder="warm_tied").values
    )


def test_a_number_that_counts_no_supports_is_no_dose():
    """The 80 of a hybrid is percent, the 256 of a spectral one principal components."""
    frame = study.study()
    others = {"dose144": "hybrid80", "dose576": "spectral256"}
    assert set(others) <= set(frame["support"])
    of_dose, of_others = (dose(Results(table))[0] for table in (frame, frame.replace({"support": others})))
    assert of_dose.panels and not of_dose.missing
    assert not of_others.panels and of_others.missing == ["runs of the family dose{p}"]


def test_retention_divides_by_the_dense_mean():
    kept = retention(Estimate({0: 0.8, 1: 0.84}, 2), Estimate({0: 0.9, 5: 1.1}, 2))
    assert kept.values == pytest.approx({0: 0.8, 1: 0.84})
    assert not retention(Estimate({0: 0.8}, 1), Estimate())


@pytest.mark.parametrize(
    ("support", "expected"),
    [("dose144", 144), ("clustered_cover", 576), ("right_regular", 4608), ("expander", 4608),
     ("bernoulli", None), ("dosed", None)],
)  # fmt: skip
def test_distinct_supports(support, expected):
    assert described(support).distinct_supports(576, 4608, 7) == expected


@pytest.mark.parametrize(
    ("support", "m", "n", "d"),
    [("clustered_cover", 36, 72, d) for d in (7, 10, 36)]
    + [("clustered_cover", 36, 20, 7), ("dose6", 36, 72, 7), ("dose6", 36, 72, 10), ("dose6", 36, 20, 7)],
)
def test_distinct_supports_are_those_of_the_mask(support, m, n, d):
    rows = MaskRecipe(support, m, n, d, 0).generate().rows
    assert len(np.unique(np.sort(rows, axis=1), axis=0)) == described(support).distinct_supports(m, n, d)


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
