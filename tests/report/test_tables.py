"""The tables: their numbers, what stands beside them, and three ways to write them."""

import csv
import io
import math
from pathlib import Path

import pandas as pd
import pytest

from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.published import PublishedMean
from expander_sae.measurements.results import Results
from expander_sae.report.formats import Column, Table, latex_text, shown, to_csv, to_latex, to_markdown
from expander_sae.report.published_comparison import (
    in_joint_intervals,
    published_table,
    synthetic_table,
)
from expander_sae.report.table_names import TABLES, outputs
from expander_sae.report.tables import all_tables, budgets, controls, headline, write_tables
from tests.figures import study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole() -> Results:
    trials = {(d, k): 600 for d in (7, 30) for k in (4, 64)}
    return Results(
        study.study(),
        pd.read_csv(ROOT / "resources" / "paper_figures.csv"),
        pd.read_csv(ROOT / "resources" / "paper_synthetic_omp.csv"),
        claims=study.CLAIMS,
        trials=trials,
    )


def pythia(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table as if it were of a published model."""
    frame = frame.assign(model="pythia-70m-deduped", layer=3, m=512)
    return frame.assign(n=frame["n"].replace(4608, 4096), d=frame["d"].replace(576, 512))


def test_the_headline_has_the_numbers_of_the_table(whole):
    table = headline(whole)
    frame = whole.metrics
    mine = frame[(frame["support"] == "expander") & (frame["d"] == 7) & (frame["k"] == 64)
                 & (frame["encoder"] == "tied") & (frame["layer"] == 15) & (frame["train_tokens"] == 200_000)
                 & (frame["metric"] == "ce_recovered") & (frame["inference"] == "omp")]  # fmt: skip
    (row,) = [r for r in table.rows if (r["support"], r["d"], r["layer"]) == ("expander", 7, 15)
              and r["encoder"] == "tied"]  # fmt: skip
    assert row["ce_recovered_omp"].mean == pytest.approx(mine["value"].mean())
    assert row["compression"] == pytest.approx(576 / 7)
    assert "no published number is comparable" in table.notes[0]


def test_controls_are_compared_seed_by_seed(whole):
    (row,) = [r for r in controls(whole).rows if (r["support"], r["d"], r["layer"]) == ("bernoulli", 30, 15)]
    assert len(row["ce_difference"].values) == 3
    assert row["ce_difference"].mean == pytest.approx(0.01, abs=0.006)


def test_budgets_hold_every_way_of_matching(whole):
    roles = {row["role"] for row in budgets(whole).rows if row["d"] == 100}
    assert len(roles) == 4


def test_of_another_model_nothing_published_is_shown(whole):
    table = published_table(whole)
    assert table.rows == []
    assert "smollm2-135m-instruct" in table.notes[0]


def test_of_the_same_model_it_stands_in_the_same_row(whole):
    table = published_table(Results(pythia(study.study(later=False)), whole.published_figures))
    (row,) = [r for r in table.rows if (r["support"], r["d"], r["inference"], r["metric"])
              == ("expander", 7, "encoder", "relative_error")]  # fmt: skip
    assert row["published"] == pytest.approx(0.532, abs=5e-4)
    joint = math.hypot(row["ours"].half, row["published_half"])
    assert row["joint"] == pytest.approx((row["ours"].mean - row["published"]) / joint)
    assert table.notes == []


def test_a_difference_without_any_interval_has_no_unit():
    assert math.isnan(in_joint_intervals(Estimate({0: 0.5}, 1), PublishedMean(0.4, math.nan, 3)))
    half = PublishedMean(0.4, 0.01, 3).half
    assert in_joint_intervals(Estimate({0: 0.4 + half}, 1), PublishedMean(0.4, 0.01, 3)) == pytest.approx(1)


def test_synthetic_rates_stand_beside_the_published(whole):
    table = synthetic_table(whole)
    rows = {(row["sigma"], row["d"], row["k"]): row for row in table.rows}
    assert rows[0.0, 7, 4]["published"] == 1.0 and rows[0.0, 7, 4]["joint"] == 0
    assert rows[0.0, 7, 4]["trials"] == 600
    assert "cells within two joint standard errors" in table.notes[0]


def test_every_table_is_written_in_every_format(whole, tmp_path):
    written = write_tables(whole, tmp_path)
    assert sorted(str(path) for path in written) == sorted(outputs(str(tmp_path)))
    assert [table.name for table in all_tables(whole)] == list(TABLES)
    for path in written:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            rows = list(csv.reader(io.StringIO(text)))
            assert len({len(row) for row in rows}) == 1
        if path.suffix == ".tex":
            body = text[text.index("\\hline") : text.index("\\end{tabular}")]
            assert (
                len({line.count("&") - line.count("\\&") for line in body.splitlines() if "&" in line}) <= 1
            )
            assert text.isascii() or path.stem == "claims"


TABLE = Table(
    "t", "A & B", "50 % of σ", [Column("name", "name_1"), Column("x", "x", 2)],
    [{"name": "a|b", "x": Estimate({0: 1.0, 1: 1.2}, 2)}, {"name": "#1", "x": Estimate({}, 2, 2)}],
    ["note_1"],
)  # fmt: skip


def test_csv_has_full_numbers():
    assert to_csv(TABLE) == "name,x,x_half,x_seeds\na|b,1.1,1.27062,2\n#1,,,\n"


def test_markdown_escapes_its_bars():
    lines = to_markdown(TABLE).splitlines()
    assert "| a\\|b | 1.10 ± 1.27 |" in lines and "| #1 | diverged |" in lines


def test_latex_escapes_its_commands():
    text = to_latex(TABLE)
    assert r"A \& B. 50 \% of $\sigma$" in text and r"name\_1 & x \\" in text
    assert r"\#1 & diverged \\" in text and r"\par\footnotesize note\_1" in text
    assert latex_text("a\\b") == r"a\textbackslash{}b"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (math.nan, "–"), (28672, "28,672"), (-0.12345, "−0.123"), (-0.0001, "0.000"), ("x", "x"),
     (Estimate({0: 0.5}, 1), "0.500"), (Estimate(), "–"), (Estimate({0: 0.5, 1: 0.5}, 2), "0.500 ± 0.000"),
     (Estimate({0: 0.5, 1: 0.50004}, 2), "0.500 ± 0.0003"),
     (Estimate({0: 0.5, 1: 0.5001}, 2), "0.500 ± 0.001")],
)  # fmt: skip
def test_values_as_people_read_them(value, expected):
    assert shown(value) == expected
