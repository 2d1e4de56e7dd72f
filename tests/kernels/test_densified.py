"""The densified backend, what is remembered per tensor, and when `auto` takes which backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.kernels import backends, densified, precision, reference
from expander_sae.kernels.tensor_cache import PerTensor
from expander_sae.kernels.tied import tied_reconstruction

from .problems import problem
from .test_backends import CLOSE, stable_topk

SHAPES = [(5, 9, 1, 3, 2), (6, 10, 6, 2, 3), (7, 12, 3, 2, 12), (20, 150, 4, 70, 6), (1, 1, 1, 1, 1)]


@pytest.fixture
def medium_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rounded", [False, True], ids=["normal", "integers"])
def test_operations_equal_the_reference(shape: tuple[int, ...], rounded: bool) -> None:
    p = problem(*shape, seed=0, rounded=rounded)
    at = (p.values, p.rows, p.residual, p.index)
    torch.testing.assert_close(densified.correlate(*at[:3]), reference.correlate(*at[:3]), **CLOSE)
    torch.testing.assert_close(densified.correlate_at(*at), reference.correlate_at(*at), **CLOSE)
    for bias in (p.bias, None):
        _, value = densified.correlate_topk(*at[:3], bias, p.k)
        _, wanted = reference.correlate_topk(*at[:3], bias, p.k)
        torch.testing.assert_close(value.sort(dim=1).values, wanted.sort(dim=1).values, **CLOSE)


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "nan"])
@pytest.mark.parametrize("k", [1, 7, 99, 100])
def test_topk_by_rule(kind: str, k: int) -> None:
    scores = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if kind == "ties":
        scores = scores.round()
    if kind == "equal":
        scores = torch.full_like(scores, -2.5)
    if kind == "nan":
        scores[::7] = torch.nan
    rows, values = torch.zeros(100, 1, dtype=torch.int32), torch.zeros(100, 1, dtype=torch.float64)
    index, value = densified.correlate_topk(values, rows, torch.ones(3, 1).double(), scores, k)
    assert torch.equal(index.sort(dim=1).values, stable_topk(scores[None], k).expand(3, k))
    torch.testing.assert_close(value, scores[index], rtol=0, atol=0, equal_nan=True)


def test_new_values_replace_the_old_ones() -> None:
    """The copy of W is kept between calls, and so are its zeros; values may change in place or not."""
    p = problem(12, 30, 3, 4, 5, seed=1)
    for _ in range(3):
        ours, theirs = (ops.correlate(p.values, p.rows, p.residual) for ops in (densified, reference))
        torch.testing.assert_close(ours, theirs, **CLOSE)
        p.values.mul_(-1.5)
        p.values = p.values.flip(0)


def test_rows_that_repeat_within_a_column_add_up() -> None:
    """Padding may name a row that is already there; its value is 0."""
    rows = torch.tensor([[2, 0, 0], [1, 3, 1]], dtype=torch.int32)
    values = torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]])
    for _ in range(2):
        written = densified.written_out(values, rows, 4, torch.float32)
        assert written.tolist() == [[2, 0, 1, 0], [0, 8, 0, 4]]


@pytest.mark.usefixtures("medium_precision")
def test_medium_precision_rounds_the_choice_and_not_the_values() -> None:
    p = problem(32, 200, 20, 50, 6, seed=2).to(torch.float32)
    index, value = densified.correlate_topk(p.values, p.rows, p.residual, p.bias, p.k)
    scores = reference.correlate(p.values, p.rows, p.residual) + p.bias
    torch.testing.assert_close(value, scores.gather(1, index), atol=1e-5, rtol=1e-5)
    least = scores.topk(p.k, dim=1).values[:, -1:]
    assert bool((value >= least - 2**-6 * scores.abs().amax()).all())
    assert densified.written_out(p.values, p.rows, p.m, torch.bfloat16).dtype == torch.bfloat16


def test_bfloat16_sums_in_float32() -> None:
    p = problem(32, 200, 20, 50, 6, seed=3).to(torch.bfloat16)
    wide = p.to(torch.float64)
    index, value = densified.correlate_topk(p.values, p.rows, p.residual, p.bias, p.k)
    scores = reference.correlate(wide.values, wide.rows, wide.residual) + wide.bias
    assert value.dtype == torch.bfloat16
    assert torch.equal(index.sort(dim=1).values, scores.topk(p.k, dim=1).indices.sort(dim=1).values)


def test_gradients_of_a_tied_autoencoder() -> None:
    p = problem(12, 30, 3, 40, 5, seed=4)
    results = []
    for backend in (reference, densified):
        leaves = [t.clone().requires_grad_() for t in (p.values, p.bias, p.residual[0])]
        rebuilt, _, _ = tied_reconstruction(*leaves, p.residual, p.k, p.rows, backend)
        results.append(torch.autograd.grad((rebuilt - p.residual).square().sum(), leaves))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_k_out_of_range() -> None:
    p = problem(5, 6, 2, 2, 3, 0)
    with pytest.raises(ValueError, match="expected 1 <= k <= n = 6"):
        densified.correlate_topk(p.values, p.rows, p.residual, None, 7)


def test_what_is_derived_goes_with_its_source() -> None:
    held, made = PerTensor(), []

    def make() -> int:
        made.append(None)
        return len(made)

    source = torch.zeros(3)
    assert [held.get(source, "a", make), held.get(source, "a", make), held.get(source, "b", make)] == [
        1,
        1,
        2,
    ]
    source.add_(1)
    assert held.get(source, "a", make) == 3
    del source
    assert len(held) == 0
    with torch.inference_mode():
        unversioned = torch.zeros(3)
    assert [held.get(unversioned, "a", make) for _ in range(2)] == [4, 5]


def test_wide_columns_are_multiplied_as_dense_ones_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str, device_type: str, dtype: torch.dtype | None) -> ModuleType:
        loaded.append(name)
        return reference

    monkeypatch.setattr(backends, "_load", load)
    for width in (7, 102, 2000):
        backends.select("auto", "cuda:0", 2048, width)
    backends.select("auto", "cuda")
    assert loaded == ["triton", "triton", "densified", "triton"]


@pytest.mark.parametrize(
    ("name", "m", "gathered", "multiplied"),
    [("highest", 2048, 102, 200), ("high", 2048, 7, 30), ("medium", 2048, 7, 30), ("medium", 512, 7, 30),
     ("high", 576, 30, 102), ("medium", 4096, 20, 40)],
)  # fmt: skip
def test_the_faster_one_of_what_was_measured(
    name: str, m: int, gathered: int, multiplied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: name)
    assert not precision.dense_is_faster(m, gathered) and precision.dense_is_faster(m, multiplied)


@pytest.mark.parametrize("name", ["bfloat16", "tf32", "float32"])
def test_auto_takes_what_was_measured_to_be_faster(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """To a fifth, wherever a GPU was asked for both; what was measured last counts."""
    folder = Path(__file__).parents[2] / "benchmarks/results"
    rows = [row for name in ("h100", "h200") for row in json.loads((folder / f"gpu_{name}.json").read_text())]
    rows = [row for row in rows if row["task"] == "encode_topk"]
    taken = {(r["variant"], r["m"], r["d"]): r["ms_median"] for r in rows if r["dtype"] == name}
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision.PRECISIONS[name])
    shapes = {(m, d) for variant, m, d in taken if variant == "densified"}
    assert len(shapes) >= 3
    for m, d in shapes:
        chosen, other = ("densified", "triton")[:: 1 if precision.dense_is_faster(m, d) else -1]
        assert taken[chosen, m, d] < 1.2 * taken[other, m, d], (m, d)


def test_select_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backends.select("densified") is densified
    with pytest.raises(UserError, match=r"compute\.backend.*the device is cpu"):
        backends.select("triton", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backends.select("auto", "cuda:0") is reference
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"compute\.backend.*triton is not installed"):
        backends.select("triton", "cuda")
