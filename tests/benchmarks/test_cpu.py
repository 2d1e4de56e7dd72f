"""The benchmarks' variants do the same work; nothing here looks at a clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import cpu, extraction, tasks
from benchmarks.measure import Variant, has_bfloat16_units, interleaved
from benchmarks.peers import DenseEmulation, batched_qr, gathered_correlation
from benchmarks.tasks import Shape
from expander_sae.pursuit.omp import omp

FIELDS = {"task", "variant", "m", "n", "d", "k", "B", "dtype", "threads"}
FIELDS |= {"ms_median", "ms_q25", "ms_q75", "peak_mb", "device"}
SMALL = Shape(m=24, n=60, d=3, k=4, batch=10)


@pytest.fixture(params=[False, True], ids=["float32", "with bfloat16"])
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(tasks, "has_bfloat16_units", lambda: request.param)
    return request.param


def test_dense_variants_run_in_bfloat16_where_there_are_units(narrow: bool) -> None:
    for task, count in ((tasks.encode_topk, 3), (tasks.train, 2), (tasks.pursuit, 1)):
        found = {variant.name: variant for variant in task(SMALL)}
        named = [name for name in found if name.endswith("_bf16")]
        assert len(named) == (count if narrow else 0)
        for name in named:
            assert found[name].dtype == "bfloat16" and found[name.removesuffix("_bf16")].dtype == "float32"
            found[name].make()()


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx512_bf16 sse", True), ("flags : amx_bf16", True), ("avx512f", False)]
)
def test_units_are_what_linux_lists(flags: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    assert has_bfloat16_units(tmp_path / "cpuinfo") is expected
    assert not has_bfloat16_units(tmp_path / "none")


def test_variants_select_the_same_codes() -> None:
    variants = {v.name: v.make()() for v in tasks.encode_topk(SMALL) if v.dtype == "float32"}
    emulated = variants.pop("dense_emulation")
    for name, result in variants.items():
        if name == "dense_gemm_topk":
            index, value = result.indices, result.values
        elif name == "dense_topk":
            index, value = result
        else:
            index, value = result.index, result.value
        code = torch.zeros(10, 60).scatter(1, index, value)
        torch.testing.assert_close(code, emulated.detach(), atol=1e-5, rtol=1e-5, msg=name)


def test_pursuits_agree() -> None:
    columns = tasks.columns_of(SMALL)
    weight = tasks.written_out(columns).double()
    h = torch.randn(10, 24, generator=torch.Generator().manual_seed(0)).double()
    gathered = gathered_correlation(columns.values.double(), columns.rows)
    index, value = batched_qr(weight, gathered, h, 4)
    columns.values = columns.values.double()
    ours = omp(columns, h, 4)
    assert torch.equal(index, ours.index)
    torch.testing.assert_close(value, ours.value, atol=1e-6, rtol=1e-6)


def test_emulation_has_unit_columns_on_the_mask() -> None:
    columns = tasks.columns_of(SMALL)
    model = DenseEmulation(tasks.written_out(columns), 4)
    torch.testing.assert_close(model.weight().t(), tasks.written_out(columns), atol=1e-6, rtol=1e-6)


def test_turns_interleave() -> None:
    seen: list[str] = []

    def variant(name: str) -> Variant:
        return Variant(name, lambda: lambda: seen.append(name))

    timings = interleaved([variant("a"), variant("b")], rounds=2, memory=False)
    changes = [name for i, name in enumerate(seen) if i == 0 or seen[i - 1] != name]
    assert changes == ["a", "b", "a", "b"]
    assert all(timing.quantile(0.25) <= timing.quantile(0.75) for timing in timings)


@pytest.mark.parametrize("task", cpu.TASKS)
def test_writes_rows(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "jobs", lambda names, quick, folder: [_tiny(task, folder)])
    monkeypatch.setattr(cpu, "measure_ceilings", lambda quick: cpu.Ceilings(1.0, 1.0))
    cpu.main(["--quick", "--tasks", task, "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows and all(row.keys() >= FIELDS and row["task"] == task for row in rows)


def _tiny(task: str, folder: Path) -> cpu.Job:
    make = {
        "encode_topk": tasks.encode_topk,
        "train_step": tasks.train,
        "omp": tasks.pursuit,
        "pool_read": lambda shape: tasks.pool_read(shape, folder, 100),
        "extraction": lambda shape: extraction.extraction(_tiny_model(folder), folder, 40),
    }
    return task, SMALL, 1, make[task]


def _tiny_model(folder: Path) -> Path:
    return extraction.model_file(folder, convert=False, results=folder)
