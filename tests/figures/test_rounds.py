"""Rounds of a pursuit: what is compared with what, and the work that is counted."""

import pandas as pd
import pytest

from expander_sae.figures.rounds import by_rounds, multiply_adds, rounds
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from tests.figures import study


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return study.study()


@pytest.fixture(scope="module")
def view(table: pd.DataFrame) -> View:
    return Results(table).views[0]


def test_work_is_a_correlation_a_round(view: View) -> None:
    assert multiply_adds(view.cell("expander", 7), 64) == pytest.approx(64 * 4608 * 7 / 1e6)
    assert multiply_adds(view.cell("dense", n=240), 1) == pytest.approx(240 * 576 / 1e6)


def test_a_decoder_is_read_by_the_rounds_that_it_was_trained_with(view: View) -> None:
    cell = view.cell("expander", 7)
    trained, before = by_rounds(view, cell, trained=True), by_rounds(view, cell, trained=False)
    assert list(trained) == [8, 64] and trained[8].mean == pytest.approx(0.31)
    assert before[8].mean == pytest.approx(0.41)
    assert before[64] == view.estimate("relative_error", "expander", 7, inference="omp")
    assert list(by_rounds(view, view.cell("expander", 30), trained=True)) == [8]
    assert not by_rounds(view, view.cell("expander", 100), trained=True)


def test_without_codes_by_a_pursuit_it_says_what_is_missing(table: pd.DataFrame) -> None:
    (sheet,) = rounds(Results(table[table["codes"] == "encoder"]))
    assert not sheet.panels and sheet.missing == ["decoders trained with codes by a pursuit"]


def test_codes_make_no_place_and_stand_in_no_other_figure(table: pd.DataFrame, view: View) -> None:
    assert {cell.codes for cell in view.matching()} == {"encoder"}
    assert "omp" in {cell.codes for cell in view.matching(codes=None)}
    alone = Results(table[table["codes"] == "omp"]).views
    assert [one.index.codes for one in alone] == ["omp"] and alone[0].ds() == [7]
