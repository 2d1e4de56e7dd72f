"""Places, their main budgets and k, and what is looked up there."""

import pandas as pd
import pytest

from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from tests.figures import study
from tests.figures.conftest import made_up_metrics as table


def every(*frames: pd.DataFrame) -> list[View]:
    return Results(pd.concat(frames)).every_view


@pytest.fixture(scope="module")
def view() -> View:
    return Results(study.study()).views[0]


def test_the_main_budget_and_k_are_those_with_most_runs(view):
    assert (view.train_tokens, view.steps, view.k, view.place.layer) == (200_000, 5000, 64, 15)
    assert view.ds() == [7, 30, 100]
    assert view.supports()[0] == "expander"
    assert view.supports()[-2:] == ["dose144", "dose576"]


def test_other_columns_are_asked_for_by_name(view):
    cell = view.cell("expander", 7, k=16, encoder="full")
    assert (cell.k, cell.encoder, cell.n, cell.train_tokens) == (16, "full", 4608, 200_000)
    assert view.cell("dense", 7).d == view.place.m
    assert view.estimate("ce_recovered", "expander", 7) == view.index.estimate(
        view.cell("expander", 7), "ce_recovered"
    )
    assert {cell.k for cell in view.matching(k=None)} == {16, 64, 128}


def test_every_budget_and_k_of_sparse_runs_is_a_view():
    found = every(table(layer=15), table(layer=3), table(k=16))
    assert [(one.place.layer, one.k) for one in found] == [(3, 64), (15, 16), (15, 64)]
    longer = table(steps=9000, ds=(), controls=())
    assert len(every(table(layer=15), table(layer=3), table(k=16), longer)) == 3


def test_where_nothing_is_sparse_dense_runs_are_viewed_by_their_largest():
    dense = table(ds=(), controls=())
    small = dense[dense["support"] == "dense"].assign(n=800)
    (found,) = every(dense, small)
    assert found.place.n == 4608
    assert {cell.n for cell in found.matching()} == {800, 4608}
    assert [one.place for one in Results(pd.concat([dense, small])).views] == [found.place]


def test_the_k_with_most_d_comes_first_and_smaller_budgets_last():
    ends = [table(k=16, ds=(7, 100)), table(k=128, ds=(7, 100))]
    found = every(*ends, table(), table(steps=9, ds=(7, 30, 50, 100, 200)))
    assert [(one.k, one.steps) for one in found] == [(64, 1500), (16, 1500), (128, 1500), (64, 9)]


def test_two_n_are_two_places():
    found = every(table(), table(expansion=4, ds=(30, 100)))
    assert [one.place.n for one in found] == [2304, 4608]
    assert {cell.n for cell in found[0].cells if cell.support != "dense"} == {2304}


def test_the_models_own_cross_entropies():
    frame = table()
    (view,) = every(frame)
    assert view.entropies() == {"ce_clean": 3.21, "ce_zero": 11.4, "ce_zero_kept": 8.6, "ce_mean_kept": 7.1}
    elsewhere = frame["support"] == "none"
    moved = frame.assign(train_tokens=frame["train_tokens"].mask(elsewhere, 7))
    assert every(moved)[0].entropies() == {"ce_clean": 3.21, "ce_zero": 11.4}
    assert every(frame[~elsewhere])[0].entropies() == {}


def test_what_nobody_trained_stands_beside_every_view_of_its_layer_and_makes_none():
    metrics = table(layer=15)
    floor = metrics[metrics["support"] == "dense"].head(1)
    pca = floor.assign(support="pca", n=480, steps=0)
    beside = [floor.assign(support="exemplars", steps=0), floor.assign(support="pca", layer=3, steps=0)]
    (view,) = every(metrics, pca, *beside)
    assert {cell.support for cell in view.floors()} == {"pca", "exemplars"}
    (alone,) = every(metrics)
    assert view.place == alone.place and view.steps == alone.steps
    assert view.matching(steps=None, k=None) == alone.matching(steps=None, k=None)
