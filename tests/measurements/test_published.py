"""What stands beside ours from the paper: only where model, layer and sizes are the same."""

import math
from pathlib import Path

import pandas as pd
import pytest

from expander_sae.measurements.estimate import half_interval
from expander_sae.measurements.published import PublishedMean
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from tests.figures import study

FIGURES = pd.read_csv(Path(__file__).resolve().parents[2] / "resources" / "paper_figures.csv")


def view_of(frame: pd.DataFrame) -> View:
    return Results(frame, FIGURES).views[0]


def test_published_values_are_found_for_the_same_model_only():
    frame = study.study(later=False)
    ours = view_of(frame)
    assert not ours.published("ce_recovered", "expander", 7)
    assert not ours.has_published
    frame = frame.assign(model="pythia-70m-deduped-0a1b2c", layer=3, m=512)
    frame = frame.assign(n=frame["n"].replace(4608, 4096), d=frame["d"].replace(576, 512))
    theirs = view_of(frame)
    assert theirs.published("relative_error", "expander", 7).mean == pytest.approx(0.532, abs=5e-4)
    assert theirs.has_published
    assert not theirs.published("relative_error", "expander", 8)
    assert not theirs.published("relative_error", "expander", 7, train_tokens=12)
    near = {cell.d for cell, _ in theirs.near("relative_error", "encoder") if cell.support == "expander"}
    assert near == {7, 30, 50, 100, 200}, "whatever was published, not only what was run"


def test_the_published_interval_undoes_the_population_s_standard_deviation():
    values = [0.50, 0.53, 0.56]
    mean = sum(values) / 3
    population = math.sqrt(sum((value - mean) ** 2 for value in values) / 3)
    assert PublishedMean(mean, population, 3).half == pytest.approx(half_interval(values))
    assert math.isnan(PublishedMean(mean, math.nan, 3).half)


def test_of_nothing_there_is_no_estimate():
    assert not PublishedMean() and not PublishedMean().estimate
    assert PublishedMean(0.5, math.nan, 3).estimate.mean == 0.5
