"""Bytes and milliseconds: what the figures say of the values, and that their words fit."""

from dataclasses import replace

import pandas as pd

from expander_sae.figures.cost import precision_text, speed, storage
from expander_sae.figures.features import novelty
from expander_sae.figures.layout import Sheet, compose
from expander_sae.figures.style import house_style
from expander_sae.measurements.results import Results
from tests.figures import study

PARTS = ("storage_values_bytes", "storage_total_bytes")


def sheets(precision: str) -> list[Sheet]:
    return storage(Results(study.study(later=False).assign(precision=precision)))


def test_stored_values_are_called_what_they_are() -> None:
    for precision in ("float32", "int8"):
        page = sheets(precision)[0]
        assert page.notes == [f"Values are {precision}."]
        assert not any("float32" in handle.get_label() for handle in page.legend)
    assert precision_text({"int4_trained", "int8"}) == "int4 trained or int8"


def test_the_words_below_the_panels_of_a_benchmark_fit_on_the_page() -> None:
    rows = study.benchmarks()
    other = rows.assign(dtype="bfloat16", threads=16, n=65_536, m=4_096)
    results = replace(Results(study.study(later=False)), benchmarks=pd.concat([rows, other]))
    with house_style():
        for sheet in speed(results):
            for columns in (1, 2):
                page = compose(sheet, columns)
                page.draw_without_rendering()
                for axes in page.axes:
                    box = axes.xaxis.label.get_window_extent()
                    assert box.x0 >= 0 and box.x1 <= page.bbox.width


def test_a_kind_of_support_has_one_name() -> None:
    labels = {handle.get_label() for sheet in novelty(Results(study.study())) for handle in sheet.legend}
    assert "clustered cover" not in labels and any("clustered" in label for label in labels)
