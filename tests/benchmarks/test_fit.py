"""Fitting the cost model; nothing here looks at a clock but the last test, which ignores what it says."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import extraction, fit, fit_jobs
from benchmarks.measure import Variant
from benchmarks.tasks import Shape
from expander_sae.cost import memory_estimate
from expander_sae.cost.time_model import CPU_FILE, JOB_CONSTANTS, Machine, terms
from expander_sae.errors import UserError

TRUE = {"a": 2e-4, "b": 3e-10, "c": 2e-11, "e": 4e-10, "f": 3e-9, "g": 5e-8, "h": 2e-9, "p": 3e-14}


def rows(task: str = "encode_topk", variant: str = "torch", held_out: bool = True) -> list[dict]:
    """Times that follow the model exactly."""
    found = []
    for number, (n, d, k, batch) in enumerate(product((1024, 8192), (7, 60), (16, 64), (64, 256))):
        m = 512 if (n > 2000) == (k > 32) else 768
        row = {"task": task, "variant": variant, "m": m, "n": n, "d": d, "k": k, "B": batch}
        seconds = np.dot(list(TRUE.values()), terms(task, fit._shape(row)))
        found.append(row | {"ms_median": seconds * 1e3, "held_out": held_out and number % 4 == 1})
    return found


@pytest.mark.parametrize("task", ["encode_topk", "train_step", "omp"])
def test_exact_times_give_the_coefficients_back(task):
    found = fit.fit(rows(task), gather_flops=2e11)
    for name, value in TRUE.items():
        assert found[name] == pytest.approx(value, rel=1e-6)
    assert found["held_out"]["r2"] == pytest.approx(1)
    assert found["held_out"]["least_ratio"] == pytest.approx(1)
    assert found["held_out"]["shapes"] == 4
    assert found["gather_share"] == pytest.approx(0.5)


def test_dense_columns_are_as_wide_as_the_model():
    row = {"task": "omp", "variant": "dense_gemm", "m": 512, "n": 10, "d": 7, "k": 2, "B": 3}
    assert fit._shape(row).d == 512
    assert fit._shape(row | {"variant": "numba"}).d == 7


def test_held_out_rows_do_not_move_the_fit():
    spoiled = [row | {"ms_median": row["ms_median"] * (3 if row["held_out"] else 1)} for row in rows()]
    found = fit.fit(spoiled)
    assert found["c"] == pytest.approx(TRUE["c"], rel=1e-6)
    assert found["held_out"]["largest_ratio"] == pytest.approx(1 / 3)
    assert found["held_out"]["r2"] < 0.9


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_no_feasible_point_is_better(seed):
    random = np.random.default_rng(seed)
    matrix, target = random.standard_normal((8, 4)), random.standard_normal(8)
    found = fit.nonnegative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ found - target)
    assert (found >= 0).all()  # the conditions of Karush, Kuhn and Tucker
    assert (gradient >= -1e-9).all()
    assert np.abs(gradient[found > 0]).max(initial=0) < 1e-9


def test_r_squared():
    times = np.array([1.0, 2.0, 3.0])
    assert fit.r_squared(times, times) == 1
    assert fit.r_squared(times, np.full(3, 2.0)) == 0
    assert np.isnan(fit.r_squared(times[:1], times[:1]))


def test_too_few_shapes_are_said_so():
    with pytest.raises(UserError, match="encode_topk, torch: 3 shapes"):
        fit.fit(rows(held_out=False)[:3])


def test_rows_of_another_benchmark_are_fitted(tmp_path: Path) -> None:
    given = [row for task in ("encode_topk", "train_step") for row in rows(task, "triton")]
    for row in given:
        del row["held_out"]
    given.append(
        {"task": "encode_topk", "variant": "dense_gemm_topk", "m": 1, "n": 1, "d": 1, "k": 1, "B": 1}
    )
    given.append(given[0] | {"dtype": "bfloat16", "ms_median": 1e9})  # not the one asked for
    (tmp_path / "rows.json").write_text(json.dumps(given))
    fit.main(["--rows", str(tmp_path / "rows.json"), "--json", str(tmp_path / "fit.json")])
    fitted = Machine.read(tmp_path / "fit.json").tasks
    assert fitted["train_step"]["triton"]["c"] == pytest.approx(TRUE["c"], rel=1e-6)
    assert fitted["train_step"]["triton"]["held_out"]["shapes"] == 5
    assert fitted["omp"] == Machine.read(CPU_FILE).tasks["omp"]
    assert Machine.read(tmp_path / "fit.json").estimated == ()
    base = json.loads(CPU_FILE.read_text()) | {"estimated": ["train_step", "omp"]}
    (tmp_path / "base.json").write_text(json.dumps(base))
    asked = ["--rows", str(tmp_path / "rows.json"), "--base", str(tmp_path / "base.json")]
    fit.main([*asked, "--json", str(tmp_path / "fit.json")])
    assert Machine.read(tmp_path / "fit.json").estimated == ("omp",)


def test_rows_of_a_graph_are_the_step_and_share_the_price_of_a_call() -> None:
    """A round of G steps takes a + G · the rest; rows of the same step launch by launch are left out."""
    rounds = []
    for number, row in enumerate(rows("train_step", "triton", held_out=False)):
        together = 1 + number % 3
        one = np.array(terms("train_step", fit._shape(row)))
        once, rest = one[0] * TRUE["a"], np.dot(list(TRUE.values())[1:], one[1:])
        rounds.append(row | {"task": "train_graph", "ms_mean": (once + together * rest) * 1e3})
        rounds[-1] |= {"together": together}
        del rounds[-1]["ms_median"]
    slow = [row | {"ms_median": 1e3} for row in rows("train_step", "triton")]
    found = fit.fit_all([*rounds, *slow], None)["train_step"]["triton"]
    for name, value in TRUE.items():
        assert found[name] == pytest.approx(value, rel=1e-6)


def test_widths_of_a_round_count_alike() -> None:
    row = {"task": "train_graph", "variant": "triton", "m": 64, "n": 100, "k": 4, "B": 8, "together": 6}
    found = fit._terms(row | {"d": [2, 10]})
    each = [np.array(fit._terms(row | {"d": d, "together": 1})) for d in (2, 10)]
    assert found[0] == each[0][0]
    np.testing.assert_allclose(found[1:], 3 * (each[0] + each[1])[1:])


def test_two_shapes_of_a_dense_step_give_products_and_passes() -> None:
    """Its products are five, of all features; with two rows nothing else is fitted."""
    given = []
    for batch in (256, 4096):
        row = {"task": "train_graph", "variant": "dense_products", "m": 512, "n": 4096, "d": 512, "k": 8}
        seconds = 5 * 2e-15 * 4096 * 512 * batch + 3e-11 * 4096 * 512
        given.append(row | {"B": batch, "ms_mean": seconds * 1e3})
    found = fit.fit_all(given, None)["train_step"]["dense"]
    assert found["passes"] == 5
    assert (found["c"], found["f"]) == (pytest.approx(2e-15), pytest.approx(3e-11))
    assert all(found[name] == 0 for name in "abeghp")


def test_what_is_timed_covers_every_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def timed(variants: list[Variant], rounds: int, memory: bool) -> list:
        return [type("Timing", (), {"quantile": lambda self, q: 1.0 + q})() for _ in variants]

    monkeypatch.setattr(fit, "interleaved", timed)
    monkeypatch.setattr(fit_jobs, "gather_flops", lambda: 1e11)
    fit.main(["--quick", "--json", str(tmp_path / "fit.json"), "--save-rows", str(tmp_path / "rows.json")])
    found = Machine.read(tmp_path / "fit.json")
    for fitted in found.tasks.values():
        assert fitted.keys() >= {"torch", "dense"}
        assert all(one["held_out"]["shapes"] >= 2 for one in fitted.values())
    assert len(json.loads((tmp_path / "rows.json").read_text())) > 50


def test_quick_shapes_can_be_timed() -> None:
    shape, _, variant = next(each for each in fit._variants("omp", True) if each[2].name == "dense_gemm")
    assert isinstance(shape, Shape)
    assert variant.make()().index.shape == (shape.batch, shape.k)


def test_constants_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = extraction.model_file(tmp_path, convert=False, results=tmp_path)
    monkeypatch.setattr(extraction, "EMBEDDED", "tiny")
    monkeypatch.setitem(memory_estimate.VOCABULARIES, "tiny", 512)
    monkeypatch.setattr(extraction, "model_file", lambda folder: model)
    (tmp_path / "new").mkdir()
    found = fit_jobs._model_rates(tmp_path / "new", tokens=400) | fit_jobs._pool_rates(tmp_path, 256, 16)
    assert set(found) == {"load", "forward_float32", "logits", "shard_bytes", "pool_bytes", "read_bytes"}
    assert set(found) < set(JOB_CONSTANTS)
    assert all(value > 0 for value in found.values())


def test_the_programs_that_time_a_start_run() -> None:
    for code in (fit_jobs._START, fit_jobs._START_MODEL):
        exec(compile(code, "start", "exec"), {})


def test_gather_ceiling_is_a_rate() -> None:
    pytest.importorskip("numba")
    assert fit_jobs.gather_flops(m=64) > 1e8
