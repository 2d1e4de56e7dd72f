"""The table of choices and that of every mark: their numbers, and which run each row is about."""

import csv
import io
import math
from dataclasses import replace

import pytest

from expander_sae.figures.answer_rows import answers
from expander_sae.figures.candidates import CE, candidates
from expander_sae.measurements.results import Results
from expander_sae.report.choice_tables import choice_table, frontier_table
from expander_sae.report.formats import to_csv, to_latex, to_markdown
from tests.figures import choices, study
from tests.figures.study import M, N


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(choices.frame())


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_of_choices_says_which_run_was_taken_and_its_numbers(results: Results) -> None:
    rows = read(to_csv(choice_table(results)))
    assert len(rows) == 12
    (row,) = [r for r in rows if (r["budget"], r["purpose"]) == ("≤ 500 kB", "fidelity (encoder)")]
    # Without other precisions than float32 only d = 7 fits: n′ = 240 takes 572 kB.
    assert (row["take"], row["support"], row["n"], row["d"], row["steps"]) == (
        "expander d=7", "expander", str(N), "7", str(choices.STEPS),
    )  # fmt: skip
    assert float(row["bytes"]) == 4 * (N * 7 + N + M)
    assert float(row[CE]) == pytest.approx(0.921) and row[f"{CE}_seeds"] == "3"
    assert float(row["decides_half"]) == pytest.approx(float(row[f"{CE}_half"]))
    assert (row["untrained"], row["verdict"], row["decides"]) == ("PCA 56", "worse", CE)
    assert float(row["untrained_value"]) == pytest.approx(0.8855)


def test_it_has_the_rows_of_the_figure(results: Results) -> None:
    table = choice_table(results)
    drawn = answers(candidates(results.views[0]))
    for row, one in zip(table.rows, drawn, strict=True):
        if one.taken is None:
            assert row["take"] == "nothing fits" and "bytes" not in row and row["verdict"] is None
        else:
            assert (row["bytes"], row["inference"]) == (one.taken.size, one.taken.inference)
            assert row[CE].mean == one.taken.mean(CE)


def test_the_printed_interval_is_the_one_by_which_values_are_told_apart(results: Results) -> None:
    """Over documents as well as seeds."""
    every = candidates(results.views[0])
    by_table = choice_table(results).rows, frontier_table(results).rows
    for row, one in zip(by_table[0], answers(every), strict=True):
        if one.taken:
            assert row[one.purpose.metric].half == pytest.approx(row["decides_half"], nan_ok=True)
    for row, one in zip(by_table[1], every, strict=True):
        assert row["selectivity"].half == pytest.approx(one.half("selectivity"))
        assert row["selectivity"].half > 0.0199, "the half over documents"
    table = frontier_table(results)
    (printed,) = [r["selectivity_half"] for r in read(to_csv(table))
                  if r["name"] == "PCA 56" and r["inference"] == "encoder"]  # fmt: skip
    assert float(printed) == pytest.approx(0.02) and "0.200 ± 0.020" in to_markdown(table)


def test_the_floor_beside_a_choice_has_its_error_and_its_time(results: Results) -> None:
    table = choice_table(results)
    rows = {(row["budget"], row["purpose"]): row for row in table.rows}
    by_omp = rows["any size", "features"]["floor"], rows["≤ 40 kB", "fidelity (OMP)"]["floor"]
    assert all("rel. error 0." in text and " a token" in text for text in by_omp)
    assert by_omp[1].startswith("exemplars as ids, needs the model (9.4 kB)")
    (row,) = [r for r in read(to_csv(table)) if (r["budget"], r["purpose"]) == ("any size", "features")]
    assert float(row["untrained_error"]) > 0 and float(row["untrained_microseconds"]) > 0
    assert "floor" not in row and "nobody trained" in to_markdown(table)


def test_what_all_rows_share_is_said_once_for_people_only(results: Results) -> None:
    table = choice_table(results)
    head = to_markdown(table).splitlines()
    assert head[2].startswith("All rows: model smollm2-135m-instruct, layer 15. ")
    assert "layer" not in head[4] and "layer" in to_csv(table).splitlines()[0]
    two = replace(table, rows=[table.rows[0], {**table.rows[1], "layer": 22}])
    assert "layer" in to_markdown(two).splitlines()[4] and "All rows: model" in to_latex(two)


def test_people_read_fewer_columns_than_programs(results: Results) -> None:
    table = choice_table(results)
    assert "train_tokens" in to_csv(table)
    for text in (to_markdown(table), to_latex(table)):
        assert "train_tokens" not in text and "train\\_tokens" not in text
        assert "expander d=7" in text and "nothing fits" in text
    assert to_latex(table).isascii()
    header = to_markdown(table).splitlines()[4]
    assert header.count("|") == len(table.read) + 1


def test_where_intervals_are_not_known_the_table_says_so() -> None:
    alone = Results(choices.frame(untrained=False, seeds=(0,)))
    rows = choice_table(alone).rows
    told = {row["purpose"]: row.get("alike") for row in rows if row["budget"] == "any size"}
    assert told["fidelity (encoder)"] == "one seed: not known"
    assert told["features"] != "one seed: not known", "documents give an interval"
    assert all(row["verdict"] is None for row in rows)


def test_every_mark_of_the_page_is_in_the_table_of_marks(results: Results) -> None:
    rows = read(to_csv(frontier_table(results)))
    every = candidates(results.views[0])
    assert len(rows) == len(every)
    assert {(row["support"], row["group"]) for row in rows} >= {
        ("pca", "untrained"), ("expander", "trained"), ("frozen_decoder", "frozen"),
    }  # fmt: skip
    mine = [row for row in rows if row["group"] == "trained" and row["inference"] == "encoder"]
    front = [row for row in mine if row["front_ce_recovered"] == "yes"]
    best = -math.inf
    for row in sorted(mine, key=lambda one: float(one["bytes"])):
        assert (row in front) is (float(row[CE]) > best)
        best = max(best, float(row[CE]))


def test_a_study_without_floors_and_precisions_has_its_choices_too() -> None:
    table = choice_table(Results(study.study(later=False)))
    assert {row["purpose"] for row in table.rows} == {"fidelity (encoder)", "fidelity (OMP)"}
    assert not any(row.get("untrained") for row in table.rows)
    bare = study.study(later=False)
    assert choice_table(Results(bare[~bare["metric"].str.startswith("storage")])).rows == []
