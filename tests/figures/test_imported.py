"""Autoencoders from elsewhere in figures and tables: with their own names, beside what the study made."""

from pathlib import Path

import pandas as pd
import pytest

from expander_sae.figures.answer import choices as pages_of_choices
from expander_sae.figures.answer_panel import AnswerPanel
from expander_sae.figures.answer_rows import answers
from expander_sae.figures.candidate_costs import microseconds, training_seconds
from expander_sae.figures.candidate_words import Names
from expander_sae.figures.candidates import candidates
from expander_sae.figures.frontier import frontier
from expander_sae.figures.layout import compose
from expander_sae.figures.style import house_style
from expander_sae.figures.write import draw_frontier
from expander_sae.masks.supports import imported
from expander_sae.measurements.results import Results
from expander_sae.report.choice_tables import frontier_table
from expander_sae.report.tables import headline
from tests.figures import choices
from tests.figures.study import M, Made, N

THEIRS, OTHERS = imported("their_top-k", "a" * 64), imported("others", "b" * 64)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """What a study made in 8 bits, and two that came in float32: one of k = 32, one of thresholds."""
    own = choices.frame().assign(precision="int8")
    made = Made()
    choices.rows_of(made, [(THEIRS, N, M, 0.999, 0.1, 0.9), (OTHERS, 2 * N, M, -3.0, 2.0, 0.1)], 0, (0,))
    theirs = made.frame().assign(precision="float32", encoder="imported")
    theirs["k"] = theirs["k"].where(theirs["support"] == OTHERS, 32).where(theirs["support"] == THEIRS, 2 * N)
    return pd.concat([own, theirs])


def test_they_have_their_own_names_and_choose_nothing(table: pd.DataFrame) -> None:
    view = choices.only_view(table)
    every, without = candidates(view), candidates(choices.only_view(table[table["precision"] == "int8"]))
    theirs = [one for one in every if one.group == "imported"]
    names = Names.of(every, N)
    assert {names(one) for one in theirs} == {
        "their_top-k k=32 float32",
        f"others thresholds n={2 * N:,} float32",
    }
    assert {one.inference for one in theirs} == {"encoder", "omp"}
    assert [one for one in every if one.group != "imported"] == without
    assert answers(every) == answers(without), "though theirs is better than all that was trained"
    assert all(microseconds(one) is None and training_seconds(one) is None for one in theirs)


def test_a_study_has_the_places_that_it_has_without_them(table: pd.DataFrame) -> None:
    own, beside = Results(table[table["precision"] == "int8"]), Results(table)
    assert [view.place for view in beside.views] == [view.place for view in own.views]
    assert [str(view) for view in beside.every_view] == [str(view) for view in own.every_view]
    assert (beside.index.precision, beside.index.codes) == ("int8", "encoder")
    assert [cell.support for cell in beside.views[0].imports()] == [OTHERS, THEIRS]
    assert not {THEIRS, OTHERS} & {cell.support for cell in beside.views[0].floors()}


def test_the_first_page_of_the_frontier_draws_and_names_all_of_them(table: pd.DataFrame) -> None:
    results = Results(table)
    sheet = frontier(results)[0]
    assert sheet.title == pages_of_choices(results)[0].title
    with house_style():
        page = compose(sheet)
        page.draw_without_rendering()
    for panel, axes in zip(
        [panel.draw for panel in sheet.panels if isinstance(panel.draw, AnswerPanel)],
        page.axes[1:],
        strict=False,
    ):
        low, high = axes.get_ylim()
        for one in panel.shown:
            if one.group == "imported":
                assert low < panel.scale(one.mean(panel.metric)) < high
                assert panel.limits[0] < one.size < panel.limits[1] and one in panel.named()
    legend = {
        text.get_text() for axes in page.axes if axes.get_legend() for text in axes.get_legend().get_texts()
    }
    assert {"their_top-k", "others"} <= legend
    assert "Imported autoencoders have a k and a training of their own" in " ".join(sheet.notes)


def test_one_that_rebuilds_nothing_is_named(table: pd.DataFrame) -> None:
    """As of a run that diverged, no mean has it; it may be of another layer."""
    lost = (table["support"] == OTHERS) & (table["metric"] == "diverged") & (table["inference"] == "encoder")
    results = Results(table.assign(value=table["value"].mask(lost, 1.0)))
    sheet = pages_of_choices(results)[0]
    assert "since their encoders' errors exceed 1: others." in " ".join(sheet.notes)
    assert "errors exceed 1" not in " ".join(pages_of_choices(Results(table))[0].notes)


def test_alone_they_make_no_place(table: pd.DataFrame, tmp_path: Path) -> None:
    results = Results(table[table["precision"] == "float32"])
    assert not results.views and not frontier(results)
    draw_frontier(results, tmp_path / "f.pdf", tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size and not headline(results).rows


def test_the_reports_tables_have_them(table: pd.DataFrame) -> None:
    results = Results(table)
    rows = [row for row in frontier_table(results).rows if row["group"] == "imported"]
    assert {(row["support"], row["k"]) for row in rows} == {(THEIRS, 32), (OTHERS, 2 * N)}
    assert not any(key.startswith("front_") for row in rows for key in row)
    found = {row["support"]: row for row in headline(results).rows}
    assert found[THEIRS]["ce_recovered"].mean == pytest.approx(0.999, abs=1e-3)
    assert "Imported" in headline(results).caption
    assert "Imported" not in headline(Results(table[table["precision"] == "int8"])).caption
