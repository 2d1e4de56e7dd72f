"""The page of choices: first where there is something to choose, legible, and the same for the same table."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from expander_sae.figures.answer import TITLE, sheet_of
from expander_sae.figures.answer import choices as pages_of_choices
from expander_sae.figures.answer_panel import AnswerPanel, Scale
from expander_sae.figures.answer_rows import answers
from expander_sae.figures.answer_table import HEAD, LINE, AnswerTable
from expander_sae.figures.candidates import CE, ERROR, METRICS, Candidate
from expander_sae.figures.catalogue import FRONTIER
from expander_sae.figures.layout import Sheet, compose
from expander_sae.figures.style import SMALL, house_style, looks_for
from expander_sae.figures.write import draw_frontier
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results
from tests.figures import choices, study


@pytest.fixture(scope="module")
def every() -> list[Candidate]:
    return choices.everything()


@pytest.fixture(scope="module")
def sheet(every: list[Candidate]) -> Sheet:
    supports = {one.cell.support for one in every}
    return sheet_of(choices.only_view(choices.frame()), every, looks_for(supports))


@pytest.fixture(scope="module")
def page(sheet: Sheet) -> Figure:
    with house_style():
        drawn = compose(sheet)
        drawn.draw_without_rendering()
    return drawn


def panels(sheet: Sheet) -> list[AnswerPanel]:
    return [panel.draw for panel in sheet.panels if isinstance(panel.draw, AnswerPanel)]


def texts_of(page: Figure) -> list[Text]:
    """Everything that can be read on a page; labels of ticks out of the limits are not drawn."""
    found = list(page.texts)
    for axes in page.axes:
        found += axes.texts
        if legend := axes.get_legend():
            found += legend.get_texts()
        if axes.axison:
            found += [axes.xaxis.label, axes.yaxis.label]
            (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
            found += [text for text in axes.get_xticklabels() if left <= text.get_position()[0] <= right]
            found += [text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
    return [text for text in found if text.get_text() and text.get_visible()]


def test_no_text_leaves_the_page_covers_another_or_is_too_small(page: Figure) -> None:
    boxes = [(text, text.get_window_extent()) for text in texts_of(page)]
    assert len(boxes) > 100
    for place, (text, box) in enumerate(boxes):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.bbox.width and box.y1 <= page.bbox.height
        assert inside, f"{text.get_text()!r} leaves the page"
        assert text.get_fontsize() >= SMALL
        for other, its in boxes[place + 1 :]:
            apart = (
                box.x1 <= its.x0 + 2 or its.x1 <= box.x0 + 2 or box.y1 <= its.y0 + 3 or its.y1 <= box.y0 + 3
            )
            assert apart, f"{text.get_text()!r} covers {other.get_text()!r}"


def test_every_member_of_a_front_is_named_on_its_panel(sheet: Sheet, page: Figure) -> None:
    drawn = [axes for axes in page.axes if axes.axison]
    assert [panel.metric for panel in panels(sheet)] == list(METRICS)
    for panel, axes in zip(panels(sheet), drawn, strict=True):
        written = [text.get_text() for text in axes.texts]
        low, high = axes.get_ylim()
        for one in panel.named():
            if low <= panel.scale(one.mean(panel.metric)) <= high:
                assert panel.label(one) in written, f"{panel.metric}: {panel.label(one)}"
        named = {one.key for one in panel.named()}
        for group in ("trained", "untrained"):
            for inference in ("encoder", "omp"):
                assert {one.key for one in panel.front(inference, group)} <= named
        supports = [one.cell.support for one in panel.named()]
        assert set(choices.FLOORS) <= set(supports), "each floor is named somewhere"
        assert supports.count("frozen_decoder") == 1


def test_under_each_choice_stands_what_nobody_trained_with_all_its_numbers(
    every: list[Candidate], sheet: Sheet
) -> None:
    (table,) = [panel.draw for panel in sheet.panels if isinstance(panel.draw, AnswerTable)]
    rows = answers(every)
    told = [table.floor(row) for row in rows]
    assert all(len(line) == len(HEAD) for line in told)
    for row, line in zip(rows, told, strict=True):
        floor = row.untrained
        assert line[HEAD.index("error")] == f"{floor.mean(ERROR):.3f}"
        assert line[HEAD.index("CE rec.")] == f"{floor.mean(CE):.3f}"
        assert line[HEAD.index("per token")] != "–" and line[HEAD.index("to train")] == "none"
        assert ("needs the model" in line[2]) is floor.by_ids
        assert (": better" in line[2]) is (row.verdict == "better")
    assert any(row.untrained.by_ids for row in rows) and any(row.verdict == "better" for row in rows)
    assert table.height > LINE * 2 * len(rows)
    without = replace(rows[0], untrained=None)
    assert table.floor(without) == []


def test_what_is_read_by_omp_says_so_and_expanders_off_the_front_have_names(
    sheet: Sheet, page: Figure
) -> None:
    panel = panels(sheet)[0]
    by_omp = [one for one in panel.named() if one.group == "trained" and one.inference == "omp"]
    assert by_omp and all(panel.label(one).endswith(" OMP") for one in by_omp)
    expanders = {one.key for one in panel.shown if one.cell.support == "expander"}
    assert expanders <= {one.key for one in panel.labelled()}


def test_what_no_panel_has_room_for_is_said(every: list[Candidate]) -> None:
    def worse(one: Candidate) -> Candidate:
        values = {0: 5.0}
        return replace(one, estimates={**one.estimates, ERROR: Estimate(values, 1)})

    far = [worse(one) if one.cell.support == "frozen_decoder" else one for one in every]
    drawn = sheet_of(choices.only_view(choices.frame()), far, looks_for({one.cell.support for one in far}))
    (note,) = [note for note in drawn.notes if note.startswith("Too far off")]
    assert "frozen decoder" in note and "relative error 5.000" in note


def test_panels_share_the_axis_of_bytes_and_hold_every_trained_mark(sheet: Sheet, page: Figure) -> None:
    drawn = [axes for axes in page.axes if axes.axison]
    assert len({axes.get_xlim() for axes in drawn}) == 1
    for panel, axes in zip(panels(sheet), drawn, strict=True):
        marks = {
            (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1
        }
        low, high = axes.get_ylim()
        for one in panel.shown:
            height = panel.scale(one.mean(panel.metric))
            assert (one.size, height) in marks
            assert one.group != "trained" or low <= height <= high


def test_the_grey_begins_where_the_first_floor_stands(sheet: Sheet, page: Figure) -> None:
    panel, axes = panels(sheet)[0], next(axes for axes in page.axes if axes.axison)
    shades = {
        tuple(round(255 * part) for part in shade.get_facecolor()[0][:3]): shade for shade in axes.collections
    }
    assert len(shades) == 2, "by the encoder and by OMP"
    for inference, colour in (("encoder", 0xD8), ("omp", 0xEF)):
        shaded = shades[colour, colour, colour].get_datalim(axes.transData)
        members = panel.front(inference, "untrained")
        assert shaded.x0 == pytest.approx(min(one.size for one in members))
        assert shaded.y1 == pytest.approx(max(panel.scale(one.mean(CE)) for one in members))


def test_filled_by_the_encoder_hollow_by_omp(sheet: Sheet, page: Figure) -> None:
    panel, axes = panels(sheet)[0], next(axes for axes in page.axes if axes.axison)
    faces = {(line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor()
             for line in axes.lines if len(line.get_xdata()) == 1}  # fmt: skip
    for one in panel.shown:
        face = faces[one.size, panel.scale(one.mean(CE))]
        assert (face == "white") is (one.inference == "omp")


def test_the_stretched_scale_keeps_the_order_and_bears_a_value_above_1() -> None:
    values = [-3.0, 0.0, 0.5, 0.9, 0.99, 0.9999]
    heights = [Scale(CE)(value) for value in values]
    assert heights == sorted(heights) and len(set(heights)) == len(heights)
    assert math.isfinite(Scale(CE)(1.2))
    assert (Scale(ERROR).bad, Scale(CE).bad) == (1, -1)


def test_the_page_comes_first_where_there_is_something_to_choose() -> None:
    sheets = FRONTIER.sheets(Results(choices.frame()))
    assert [sheet.title for sheet in sheets].index(TITLE) == 0
    assert [sheet.title for sheet in sheets].count(TITLE) == 1
    assert len(sheets) > 1, "the pages over values follow"


def test_without_floors_precisions_and_selectivity_it_is_left_out() -> None:
    assert pages_of_choices(Results(study.study(later=False))) == []
    bare = choices.frame(untrained=False)
    kept = bare[~bare["metric"].str.startswith("selectivity")]
    assert pages_of_choices(Results(kept)) == []
    assert len(pages_of_choices(Results(bare))) == 1


def test_what_is_not_measured_has_no_panel_and_no_words() -> None:
    table = choices.frame()
    (sheet,) = pages_of_choices(Results(table[~table["metric"].str.startswith(("selectivity", "ce_"))]))
    assert [panel.metric for panel in panels(sheet)] == [ERROR]
    assert "Selectivity" not in sheet.notes[-1] and "CE recovered" not in sheet.notes[-1]
    with house_style():
        compose(sheet).draw_without_rendering()


def test_one_dictionary_is_drawn_too() -> None:
    table = choices.frame(untrained=False, seeds=(0,))
    one = table[(table["support"] == "expander") & (table["d"] == 7) & (table["inference"] != "omp")]
    (sheet,) = pages_of_choices(Results(one))
    with house_style():
        compose(sheet).draw_without_rendering()


def test_the_same_table_in_any_order_gives_the_same_bytes(tmp_path: Path) -> None:
    table = choices.frame()
    for name, frame in (("a", table), ("b", table.sample(frac=1, random_state=1))):
        draw_frontier(Results(pd.DataFrame(frame)), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
