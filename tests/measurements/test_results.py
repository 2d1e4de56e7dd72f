"""Reading everything at once: what is absent is empty, what is broken is named."""

import json
from pathlib import Path

import pytest

from expander_sae.errors import UserError
from expander_sae.measurements.results import Results, read_results
from expander_sae.measurements.tables import write_documents, write_metrics
from tests.figures import study
from tests.figures.conftest import made_up_metrics


def test_what_is_absent_is_empty(tmp_path: Path) -> None:
    write_metrics(study.study(later=False).to_dict("records"), tmp_path / "metrics.parquet")
    found = read_results(tmp_path / "metrics.parquet", None, None, tmp_path / "none", tmp_path / "none")
    assert found.curves.empty and found.benchmarks.empty and not found.claims and not found.trials
    assert found.curves_of(found.views[0]).empty and not found.recovery
    assert not found.views[0].has_published


def test_curves_are_those_of_the_view() -> None:
    found = Results(study.study(), curves=study.curves())
    assert len(found.curves_of(found.views[0])) == len(study.curves())
    assert found.curves_of(found.views[1]).empty, "the other layer"


def test_planted_codes_and_their_trials(tmp_path: Path) -> None:
    frame = study.study()
    rates = Results(frame).recovery
    assert list(rates)[:2] == [(0.0, 7, 4), (0.0, 7, 64)] and len(rates) == 8
    assert rates[0.01, 30, 64].mean == 0.5 and len(rates[0.01, 30, 64].values) == 3
    planted = frame[(frame["model"] == "synthetic") & (frame["d"] == 7) & (frame["k"] == 4)]
    noiseless = planted[planted["split"] == "sigma0"].drop(columns="value").to_dict("records")
    write_metrics(frame.to_dict("records"), tmp_path / "metrics.parquet")
    trials = [row | {"document": i, "sum": 1.0, "count": 1} for row in noiseless for i in range(20)]
    write_documents(trials, tmp_path / "documents.parquet")
    found = read_results(tmp_path / "metrics.parquet", documents=tmp_path / "documents.parquet")
    assert found.trials == {(7, 4): 60}


def test_benchmarks_are_the_files_that_hold_measurements(tmp_path: Path) -> None:
    write_metrics(study.study(later=False).to_dict("records"), tmp_path / "metrics.parquet")
    row = {"task": "omp", "variant": "dense", "ms_median": 3.0, "unknown": 1}
    (tmp_path / "cpu.json").write_text(json.dumps([row, "no row"]))
    (tmp_path / "other.json").write_text("{}")
    found = read_results(tmp_path / "metrics.parquet", benchmarks=tmp_path.glob("*.json")).benchmarks
    assert found[["file", "task", "ms_median"]].to_numpy().tolist() == [["cpu", "omp", 3.0]]
    (tmp_path / "torn.json").write_text("[")
    with pytest.raises(UserError, match=r"torn\.json: not readable as JSON"):
        read_results(tmp_path / "metrics.parquet", benchmarks=tmp_path.glob("*.json"))


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        read_results(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"torn\.parquet: not a readable Parquet table"):
        read_results(tmp_path / "torn.parquet")
    frame = made_up_metrics()
    frame.drop(columns="split").to_parquet(tmp_path / "short.parquet")
    with pytest.raises(UserError, match="column 'split' is missing"):
        read_results(tmp_path / "short.parquet")
    frame[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="found 0 rows and no measurement of an SAE"):
        read_results(tmp_path / "empty.parquet")
    frame.to_parquet(tmp_path / "metrics.parquet")
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_results(tmp_path / "metrics.parquet", tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="column 'model' is missing"):
        read_results(tmp_path / "metrics.parquet", tmp_path / "other.csv")
