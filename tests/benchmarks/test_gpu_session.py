"""The sitting on a GPU in its short form, on a CPU; nothing here looks at what the clock said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu_session
from benchmarks.gpu_session import QUICK, TARGETS, Sitting

ROOT = Path(__file__).resolve().parents[2]


def test_the_short_form_measures_all_that_the_targets_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_session.main(["--quick", "--no-tests", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "targets.json").read_text())["targets"]
    assert [row["target"] for row in found] == [target.name for target in TARGETS]
    assert all(row["found"] is not None and row["found"] > 0 for row in found), found
    printed = capsys.readouterr().out
    assert "left out" not in printed and "tests: passed" in printed
    rows = json.loads((tmp_path / "gpu_session.json").read_text())
    assert {row["task"] for row in rows} == {"session", "train_graph", "encode_topk", "omp"}
    assert all(row["device"] and row["ms_median"] > 0 for row in rows)
    assert all(row["finite"] for row in rows if row["task"] == "session")
    assert {row["together"] for row in rows if row["task"] == "session"} == {1, QUICK.together}


def test_targets_are_about_the_rows() -> None:
    """A step of 0.1 ms for one, a round of 0.8 for three; a dense one of 1.2."""
    shape = {"m": QUICK.wide.m, "dtype": "bfloat16", "B": QUICK.small}
    session = shape | {"task": "session", "variant": "torch"}
    rows = [session | {"together": 1, "ms_median": 0.1}, session | {"together": 3, "ms_median": 0.8}]
    graph = shape | {"task": "train_graph", "together": 1}
    rows += [graph | {"variant": "torch", "d": 3, "ms_median": 0.1}]
    rows += [graph | {"variant": "dense_products", "d": QUICK.wide.m, "ms_median": 1.2}]
    found = {target.name: target.record(rows, QUICK) for target in TARGETS}
    one, many = found["session, one, small batch, steps/s"], found["session, many, small batch, steps/s"]
    assert one["found"] == pytest.approx(10_000) and one["met"] is True
    assert many["found"] == pytest.approx(3750) and many["met"] is False
    ratio = found["graph, dense / expander, small batch"]
    assert ratio["found"] == pytest.approx(12) and ratio["met"] is True
    assert found["encode, float32, ms"] == {
        "target": "encode, float32, ms",
        "limit": 0.45,
        "found": None,
        "met": None,
    }


def test_what_begins_too_late_or_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    sitting = Sitting(replace(QUICK, device="cpu"), tmp_path, minutes=1.0)
    sitting.add("broken", lambda: [{}["none"]])
    sitting.add("whole", lambda: [{"task": "a"}])
    sitting.started -= 100
    sitting.add("late", lambda: [{"task": "b"}])
    assert sitting.left_out == ["broken", "late"] and sitting.rows == [{"task": "a"}]
    assert json.loads((tmp_path / "gpu_session.json").read_text()) == [{"task": "a"}]


def test_the_tests_that_a_sitting_runs_are_there_and_need_no_parquet() -> None:
    """A machine with a GPU has torch, triton, numpy, safetensors, tqdm, numba, pytest and hypothesis."""
    assert all((ROOT / name).exists() for name in gpu_session.TESTS)


def test_without_a_gpu_only_the_short_form_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_session.torch.cuda, "is_available", lambda: False)
    assert gpu_session.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1
