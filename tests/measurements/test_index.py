"""Which seeds count: the one rule of runs that diverged."""

import math

import pandas as pd
import pytest

from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.index import Index
from expander_sae.measurements.results import Results
from expander_sae.study.run import Cell
from tests.figures import study

FRAME = study.study(later=False)
MINE = (FRAME["support"] == "expander") & (FRAME["d"] == 7)


def estimate(frame: pd.DataFrame, metric: str = "relative_error", inference: str = "encoder") -> Estimate:
    index = Index(frame)
    (cell,) = index.matching(support="expander", d=7)
    return index.estimate(cell, metric, inference)


def flagged(frame: pd.DataFrame, seed: int, inference: str | None = None) -> pd.DataFrame:
    hit = MINE & (frame["seed"] == seed) & (frame["metric"] == "diverged")
    if inference:
        hit &= frame["inference"] == inference
    return frame.assign(value=frame["value"].mask(hit, 1.0))


def seeds(found: Estimate) -> tuple[set[int], int, int, int]:
    return set(found.values), found.asked, found.diverged, found.missing


def test_diverged_seeds_and_values_that_are_not_finite_are_in_no_mean():
    frame = flagged(FRAME, 1)
    error = MINE & (frame["metric"] == "relative_error")
    frame.loc[error & (frame["seed"] == 1), "value"] = 8.8
    frame.loc[error & (frame["seed"] == 2), "value"] = math.inf
    for inference in ("encoder", "omp"):
        found = estimate(frame, inference=inference)
        assert seeds(found) == ({0}, 3, 1, 1)
        assert found.mean < 1


def test_a_pursuit_that_diverges_leaves_the_encoder_its_seed():
    frame = flagged(FRAME, 1, "omp")
    assert seeds(estimate(frame)) == ({0, 1, 2}, 3, 0, 0)
    assert seeds(estimate(frame, inference="omp")) == ({0, 2}, 3, 1, 0)


def test_a_diverged_run_without_a_row_of_the_metric_is_counted():
    """A number that is not finite makes no row."""
    frame = flagged(FRAME, 1)
    gone = MINE & (frame["seed"] == 1) & (frame["metric"] == "ce_recovered")
    assert seeds(estimate(frame[~gone], "ce_recovered")) == ({0, 2}, 3, 1, 0)


def test_of_a_run_that_is_not_finite_nothing_was_measured():
    kept = ~MINE | (FRAME["seed"] != 1) | (FRAME["metric"] == "diverged") | (FRAME["split"] == "none")
    frame = flagged(FRAME, 1)
    index = Index(frame[kept])
    (cell,) = index.matching(support="expander", d=7)
    assert seeds(index.estimate(cell, "relative_error")) == ({0, 2}, 3, 1, 0)
    assert index.broken(cell) == {1}
    assert Index(frame).broken(cell) == set(), "diverged, but measured"


def test_splits_and_orders_of_rows_are_not_mixed():
    foreign = FRAME[FRAME["metric"] == "relative_error"].assign(split="train", value=99.0)
    shuffled = pd.concat([foreign, FRAME]).sample(frac=1, random_state=0)
    assert estimate(shuffled) == estimate(FRAME)


def test_what_was_never_measured_is_empty():
    assert not estimate(FRAME, "no such metric") and estimate(FRAME, "no such metric").asked == 0


def test_rows_of_the_model_and_of_planted_codes_are_no_trained_cells():
    index = Index(study.study())
    assert {cell.support for cell in index.cells} - {cell.support for cell in index.trained} == {"none"}
    assert all(cell.model != "synthetic" for cell in index.trained)
    assert isinstance(next(iter(index.cells)), Cell)


def test_figures_that_tell_no_precisions_apart_show_float32():
    more = (FRAME[MINE]["metric"] == "relative_error") * 1.0
    rounded = FRAME[MINE].assign(precision="int8", value=FRAME[MINE]["value"] + more)
    both = pd.concat([FRAME, rounded], ignore_index=True)
    assert Results(both).index.precision == "float32"
    for frame, precision, more in ((both, "float32", 0), (rounded, "int8", 1)):
        view = Results(frame).views[0]
        (cell,) = view.matching(support="expander", d=7)
        assert cell.precision == precision == view.cell("expander", 7).precision
        found = view.estimate("relative_error", "expander", 7)
        assert found.mean == pytest.approx(estimate(FRAME).mean + more)
    assert len(Results(both).views[0].matching(support="expander", d=7, precision=None)) == 2
    assert Results(both).views[0] == Results(FRAME).views[0]
