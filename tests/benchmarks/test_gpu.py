"""The GPU benchmark's variants on a CPU, and its bookkeeping; nothing here looks at a clock."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, gpu_pursuit, gpu_rounds, gpu_tasks
from benchmarks.measure import Ceilings
from benchmarks.tasks import Shape, columns_of
from expander_sae.kernels.precision import PRECISIONS
from expander_sae.model.dictionary import SparseCode, SparseDictionary
from expander_sae.pursuit.omp import omp

SMALL = Shape(m=24, n=60, d=0, k=4, batch=10)
NAMES = ["torch", "densified"]


@pytest.mark.parametrize("dtype", list(PRECISIONS))
def test_every_selection_is_close_to_float64(dtype: str) -> None:
    with gpu_tasks.precision(dtype):
        variants = gpu_tasks.encode_topk(SMALL, [3, 24], dtype, "cpu", NAMES)
        errors = {(v.name, v.d): v.error() for v in variants if v.error}
    assert len(errors) == 7
    assert max(errors.values()) < gpu_tasks.TOLERANCE[dtype], errors
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_wrong_selection_shows() -> None:
    h, weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), torch.eye(8)
    value, index = h.topk(3, dim=1)
    worst = h.argmin(dim=1)

    def error(index: torch.Tensor, value: torch.Tensor) -> float:
        return gpu_tasks.selection_error(lambda following: lambda: (index, value), weight, h, 3)

    assert error(index, value) < 1e-6
    assert error(index, value * 1.5) > 0.1
    index[:, 1] = index[:, 0]
    assert error(index, value) == float("inf")
    index[:, 1] = worst
    assert error(index, h.gather(1, index)) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_close_to_float64(name: str) -> None:
    assert gpu_tasks.gradient_error(Shape(24, 60, 3, 4, 10), name, "cpu") < 1e-5


ROUNDS = Shape(m=24, n=96, d=0, k=8, batch=10)


def test_rounds_leave_the_residual_of_float64_and_less_of_it_each() -> None:
    variants = gpu_rounds.rounds(ROUNDS, [10], "float32", "cpu", ["torch"])
    decoders = ("expander", "hybrid", "dense 40")
    names = [f"{decoder}, {count}" for decoder in decoders for count in (1, 2, 4, 8)]
    assert [variant.name for variant in variants if variant.error] == names
    assert max(variant.error() for variant in variants if variant.error) < 1e-5
    h = gpu_tasks.fresh(ROUNDS, "cpu")
    for decoder, autoencoder in gpu_rounds.decoders(ROUNDS, 10).items():
        dictionary, left = autoencoder.requires_grad_(False).dictionary(), {}
        for variant in variants:
            code = variant.make(lambda: h)()
            assert code.index.shape == (10, 8)
            if variant.name.startswith(f"{decoder}, "):
                left[variant.name] = float((h - dictionary.synthesize(code)).norm())
        assert sorted(left.values(), reverse=True) == list(left.values()), left
        assert left[f"{decoder}, 8"] < 0.95 * left[f"{decoder}, 1"]


def test_decoders_that_are_none_are_left_out_of_rounds() -> None:
    """One entry a sparse column of the hybrid; 16 dense columns, of which 8 are taken."""
    assert list(gpu_rounds.decoders(ROUNDS, 6)) == ["expander", "dense 24"]
    assert list(gpu_rounds.decoders(replace(ROUNDS, k=16), 6)) == ["expander"]
    assert list(gpu_rounds.decoders(ROUNDS, 4)) == ["expander", "dense 16"], "a hybrid of none is no error"


def test_other_columns_at_a_larger_residual_show() -> None:
    exact = gpu_rounds.decoders(ROUNDS, 10)["expander"].double().dictionary()
    h = gpu_tasks.fresh(ROUNDS, "cpu")
    code = omp(exact, h.double(), 8)
    assert gpu_rounds.residual_error(code, exact, h, 8, 1) < 1e-12
    other = (code.index + 1) % exact.n
    columns = exact.columns(other).transpose(1, 2)
    value = torch.linalg.lstsq(columns, h.double()[:, :, None]).solution[:, :, 0]
    assert gpu_rounds.residual_error(SparseCode(other, value), exact, h, 8, 1) > 1e-3


def test_training_and_pursuit_variants_run() -> None:
    following = gpu_tasks.batches(SMALL, "cpu", 0)
    for task in (gpu_tasks.train, gpu_tasks.train_graph, gpu_pursuit.pursuit):
        for variant in task(SMALL, [3], "bfloat16", "cpu", NAMES):
            variant.make(following)()


@pytest.mark.parametrize("dtype", list(gpu_tasks.PRECISIONS))
def test_every_pursuit_is_close_to_float64(dtype: str) -> None:
    with gpu_tasks.precision(dtype):
        variants = gpu_pursuit.pursuit(SMALL, [3], dtype, "cpu", NAMES)
        errors = {v.name: v.error() for v in variants if v.error}
    assert len(errors) == 4 and max(errors.values()) < 1e-4, errors


def test_a_wrong_pursuit_shows() -> None:
    columns = columns_of(replace(SMALL, d=3))
    exact = SparseDictionary(columns.values.double(), columns.rows, 24, "torch")
    h = gpu_tasks.fresh(SMALL, "cpu")
    code = omp(columns, h, 4)

    def error(index: torch.Tensor, value: torch.Tensor) -> float:
        return gpu_pursuit.code_error(lambda following: lambda: (index, value), exact, h, 4)

    assert error(code.index, code.value) < 1e-5
    assert error(code.index, code.value * 1.01) > 1e-3
    assert error((code.index + 1) % 60, code.value) == float("inf")


def test_jobs_begin_with_what_matters_most() -> None:
    planned = gpu.jobs(["encode_topk", "omp"], ["2048x16384", "512x4096"], ["bfloat16", "float32"], False)
    assert planned[0] == ("encode_topk", Shape(2048, 16384, 0, 64, 4096), "bfloat16")
    assert len(planned) == 2 * 2 * 6 + 2
    assert {shape.batch for _, shape, _ in planned} == {256, 1024, 4096, 16384}


def test_no_gpu_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_rows_are_kept_and_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[object] = []

    def broken(following: gpu_tasks.Following) -> None:
        raise RuntimeError("no kernel image")

    def variants(*arguments: object) -> list[gpu_tasks.GpuVariant]:
        broken_one = gpu_tasks.GpuVariant("triton", 3, broken)
        return [broken_one, *gpu_tasks.train(SMALL, [3], "float32", "cpu", ["torch"])]

    monkeypatch.setattr(gpu.Setting, "name", "some GPU")
    monkeypatch.setattr(gpu, "_SETTING", gpu.Setting(device="cpu", calls=12))
    monkeypatch.setattr(gpu, "TASKS", {"train_step": variants})
    monkeypatch.setattr(
        gpu, "jobs", lambda tasks, shapes, dtypes, quick: [(tasks[0], SMALL, d) for d in dtypes]
    )
    monkeypatch.setattr(gpu, "_timed", lambda call: calls.append(call()) or 0.05)
    ceilings = dict.fromkeys(PRECISIONS, Ceilings(1e12, 1e12))
    monkeypatch.setattr(gpu, "measure_ceilings", lambda quick: ceilings)
    stubs = {"memory_allocated": 0, "max_memory_allocated": 1 << 20, "is_available": True}
    stubs |= {"get_device_name": "some GPU", "get_device_properties": SimpleNamespace(L2_cache_size=0)}
    for name, result in {**stubs, "synchronize": 0, "reset_peak_memory_stats": 0, "empty_cache": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, result=result: result)

    path = tmp_path / "gpu.json"
    arguments = ["--quick", "--json", str(path), "--tasks", "train_step"]
    assert gpu.main([*arguments, "--dtypes", "float32", "--minutes", "10"]) == 0
    rows = json.loads(path.read_text())
    assert [row["variant"] for row in rows] == ["dense_emulation", "dense_products", "torch"]
    assert all(row["calls"] == 20 and row["peak_mb"] == 1 for row in rows)
    assert "no kernel image" in capsys.readouterr().err
    before = len(calls)
    assert gpu.main([*arguments, "--dtypes", "float32"]) == 0
    assert len(calls) == before and json.loads(path.read_text()) == rows
    assert gpu.main([*arguments, "--dtypes", "tf32", "--minutes", "-1"]) == 0
    assert "jobs left" in capsys.readouterr().out
