"""The Triton kernels against the reference: on a GPU, or in Triton's interpreter on a CPU (tiny shapes)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from expander_sae.kernels import reference
from expander_sae.kernels.tied import tied_reconstruction, tied_step
from expander_sae.model.dictionary import SparseDictionary, centred_topk

from .on_triton import DEVICE, ON_GPU
from .problems import Problem, problem
from .test_backends import stable_topk

# Only after Triton was told to interpret where there is no GPU.
from expander_sae.kernels import triton_gpu, triton_layouts, triton_topk  # isort: skip


CLOSE = {"atol": 1e-10, "rtol": 1e-10}
SHAPES = {  # m, n, w, batch, k
    "one entry a column": (5, 9, 1, 3, 2),
    "full columns": (6, 10, 6, 2, 3),
    "one feature kept": (8, 40, 3, 2, 1),
    "all features kept": (7, 12, 3, 2, 12),
    "one of everything": (1, 1, 1, 1, 1),
    "wide columns, scores kept": (40, 70, 35, 3, 5),
    "two tiles of features": (20, 150, 4, 3, 6),
}


def there(p: Problem) -> Problem:
    moved = {key: value.to(DEVICE) for key, value in vars(p).items() if isinstance(value, Tensor)}
    return replace(p, **moved)


@pytest.fixture(params=[False, True], ids=["atomics", "deterministic"])
def deterministic(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def medium_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def same_topk(p: Problem, bias: Tensor | None) -> None:
    index, value = triton_gpu.correlate_topk(p.values, p.rows, p.residual, bias, p.k)
    expected, wanted = reference.correlate_topk(p.values, p.rows, p.residual, bias, p.k)
    assert index.dtype == torch.int64
    scores = reference.correlate(p.values, p.rows, p.residual)
    scores = scores if bias is None else scores + bias
    torch.testing.assert_close(scores.gather(1, index), value, **CLOSE)
    torch.testing.assert_close(value.sort(dim=1).values, wanted.sort(dim=1).values, **CLOSE)
    assert bool((index[:, 1:] > index[:, :-1]).all())
    if bool((wanted.sort(dim=1).values.diff(dim=1) > 1e-9).all()):
        assert torch.equal(index, expected.sort(dim=1).values)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("rounded", [False, True], ids=["normal", "integers"])
def test_selection_equals_the_reference(name: str, rounded: bool) -> None:
    p = there(problem(*SHAPES[name], seed=0, rounded=rounded))
    same_topk(p, p.bias)
    same_topk(replace(p, residual=p.residual[:1]), None)


@pytest.mark.parametrize("name", SHAPES)
def test_operations_equal_the_reference(name: str, deterministic: bool) -> None:
    p = there(problem(*SHAPES[name], seed=1))
    at = (p.values, p.rows, p.residual, p.index)
    torch.testing.assert_close(triton_gpu.correlate(*at[:3]), reference.correlate(*at[:3]), **CLOSE)
    torch.testing.assert_close(triton_gpu.correlate_at(*at), reference.correlate_at(*at), **CLOSE)
    code = (p.values, p.rows, p.index, p.coefficient, p.m)
    torch.testing.assert_close(triton_gpu.synthesize(*code), reference.synthesize(*code), **CLOSE)
    outer = (p.rows, p.index, p.coefficient, p.residual)
    torch.testing.assert_close(triton_gpu.scatter_outer(*outer), reference.scatter_outer(*outer), **CLOSE)
    tied = (p.values, p.rows, p.index, p.coefficient, p.residual.flip(0), p.residual)
    for ours, theirs in zip(triton_gpu.tied_gradients(*tied), reference.tied_gradients(*tied), strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_many_panels_and_a_partial_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_layouts, "_PANEL_BYTES", 0)  # panels of 8
    monkeypatch.setattr(triton_layouts, "_BYTES_AT_ONCE", 1)  # 32 features at a time
    p = there(problem(20, 150, 3, 35, 4, seed=2))
    arguments = (p.values, p.rows, p.residual)
    torch.testing.assert_close(triton_gpu.correlate(*arguments), reference.correlate(*arguments), **CLOSE)
    same_topk(replace(p, residual=p.residual[:17]), p.bias)
    monkeypatch.setattr(triton_layouts, "multiprocessors", lambda device: 40)  # several programs a panel
    torch.testing.assert_close(triton_gpu.correlate(*arguments), reference.correlate(*arguments), **CLOSE)
    same_topk(replace(p, residual=p.residual[:17]), p.bias)
    monkeypatch.setattr(triton_gpu, "_RECOMPUTE_WIDTH", 0)
    monkeypatch.setattr(triton_gpu, "_STORED_SCORES", 150 * 3)  # three samples a launch
    same_topk(replace(p, residual=p.residual[:7]), p.bias)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [1, 6, 70])
def test_a_tied_step_is_that_of_the_reference(batch: int, dtype: torch.dtype) -> None:
    p = there(problem(50, 90, 4, batch, 6, seed=11)).to(dtype)
    given = (p.values, p.bias, p.residual[0].flip(0), p.residual, p.k, p.rows)
    found, expected = tied_step(*given, triton_gpu), tied_step(*given, reference)
    closely = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-6}
    # On a GPU the reference has the largest first.
    (ours, order), (theirs, other) = found.index.sort(dim=1), expected.index.sort(dim=1)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(found.value.gather(1, order), expected.value.gather(1, other), **closely)
    for name in ("rebuilt", "d_columns", "d_enc", "d_dec"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **closely)


@pytest.mark.parametrize("w", [3, 20])
@pytest.mark.parametrize("kinds", ["float64", "float32", "float32 medium", "bfloat16 and float32"])
def test_subtracting_while_laying_out_changes_nothing(kinds: str, w: int) -> None:
    """h − offset as PyTorch works it out, and the selection from it."""
    p = there(problem(70, 90, w, 5, 6, seed=10)).to(torch.float64 if kinds == "float64" else torch.float32)
    h = p.residual.bfloat16() if kinds.startswith("bfloat16") else p.residual
    offset = p.residual[0].flip(0)
    torch.set_float32_matmul_precision("medium" if kinds.endswith("medium") else "highest")
    try:
        found = triton_gpu.centred_topk(p.values, p.rows, h, offset, p.bias, p.k)
        expected = triton_gpu.correlate_topk(p.values, p.rows, h - offset, p.bias, p.k)
    finally:
        torch.set_float32_matmul_precision("highest")
    for ours, theirs in zip(found, (h - offset, *expected), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_a_code_is_the_same_with_and_without_a_bias_of_its_own() -> None:
    p = there(problem(20, 60, 3, 4, 5, seed=11))
    offset = p.residual[0].flip(0)
    ours, plain = (
        centred_topk(SparseDictionary(p.values, p.rows, p.m, backend), p.residual, offset, p.bias, 5)
        for backend in (triton_gpu, "torch")
    )
    assert torch.equal(ours.index, plain.index.sort(dim=1).values)


def test_places_past_a_tile() -> None:
    """More kept features and wider columns than one program takes at a time."""
    p = there(problem(70, 90, 65, 2, 40, seed=3))
    at = (p.values, p.rows, p.residual, p.index)
    torch.testing.assert_close(triton_gpu.correlate_at(*at), reference.correlate_at(*at), **CLOSE)
    code = (p.values, p.rows, p.index, p.coefficient, p.m)
    torch.testing.assert_close(triton_gpu.synthesize(*code), reference.synthesize(*code), **CLOSE)
    outer = (p.rows, p.index, p.coefficient, p.residual)
    torch.testing.assert_close(triton_gpu.scatter_outer(*outer), reference.scatter_outer(*outer), **CLOSE)


def scores_of(kind: str, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(n, generator=generator, dtype=torch.float64)
    if kind == "ties":
        scores = scores.round()  # zeros of both signs among them
    if kind == "equal":
        scores = torch.full_like(scores, -2.5)
    if kind == "nan":
        scores[torch.rand(n, generator=generator) < 0.1] = torch.nan
    if kind == "infinite":
        scores[torch.rand(n, generator=generator) < 0.5] = -torch.inf
        scores[:2] = torch.inf
    if kind == "negative":
        scores = -scores.abs() - 1
    return scores.to(DEVICE)


KINDS = ["random", "ties", "equal", "nan", "infinite", "negative"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 7, 130, 131])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_topk_by_rule(kind: str, k: int, dtype: torch.dtype) -> None:
    scores = scores_of(kind, 131).to(dtype)[None]
    index, value = triton_topk.topk_of_rows(scores, None, k)
    assert torch.equal(index, stable_topk(scores, k))
    torch.testing.assert_close(value, scores.gather(1, index), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [False, True], ids=["worked out again", "kept"])
def test_fused_topk_by_rule(kind: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry of 0 a column, and a bias: the scores are the bias, without rounding."""
    if kept:
        monkeypatch.setattr(triton_gpu, "_RECOMPUTE_WIDTH", 0)
    scores = scores_of(kind, 100)
    rows = torch.zeros(100, 1, dtype=torch.int32, device=DEVICE)
    values, residual = torch.zeros_like(scores)[:, None], torch.ones_like(scores)[:1, None]
    index, value = triton_gpu.correlate_topk(values, rows, residual, scores, 6)
    assert torch.equal(index, stable_topk(scores[None], 6))
    torch.testing.assert_close(value, scores[index], rtol=0, atol=0, equal_nan=True)


def test_a_row_of_nan_shows() -> None:
    p = there(problem(10, 40, 3, 2, 4, seed=4))
    p.values[p.values == 0] = 1
    p.residual[1] = torch.nan
    index, value = triton_gpu.correlate_topk(p.values, p.rows, p.residual, p.bias, 4)
    assert index[1].tolist() == [0, 1, 2, 3]
    assert bool(value[1].isnan().all())
    assert not value[0].isnan().any()


def test_bias_in_a_stored_selection() -> None:
    scores, bias = scores_of("random", 100)[None], scores_of("random", 100).flip(0)
    index, value = triton_topk.topk_of_rows(scores, bias, 5)
    assert torch.equal(index, stable_topk(scores + bias, 5))
    torch.testing.assert_close(value, (scores + bias).gather(1, index), **CLOSE)


def test_too_large_for_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_topk, "_LARGEST_TILE", 4)
    p = there(problem(10, 60, 3, 3, 5, seed=5))
    index, value = triton_gpu.correlate_topk(p.values, p.rows, p.residual, p.bias, p.k)
    expected, wanted = reference.correlate_topk(p.values, p.rows, p.residual, p.bias, p.k)
    assert torch.equal(index.sort(dim=1).values, expected.sort(dim=1).values)
    torch.testing.assert_close(value.sort(dim=1).values, wanted.sort(dim=1).values, **CLOSE)
    scores = reference.correlate(p.values, p.rows, p.residual)
    index, _ = triton_topk.topk_of_rows(scores, p.bias, p.k)
    assert torch.equal(index.sort(dim=1).values, expected.sort(dim=1).values)


@pytest.mark.parametrize("n", [1, 3, 100, 4096, 16384, 131072, 1 << 20])
@pytest.mark.parametrize("k", [1, 2, 64, 100])
def test_plans_hold_k_blocks(n: int, k: int) -> None:
    if k <= n:
        cut = triton_topk.plan(n, k)
        assert cut.blocks >= k
        assert cut.list_tile >= cut.blocks and cut.select_tile >= k * cut.block
    assert triton_topk.plan(1 << 20, 64).feasible


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("w", [5, 20])
def test_narrow_dtypes_are_summed_in_float32(dtype: torch.dtype, w: int) -> None:
    narrow = there(problem(32, 60, w, 3, 6, seed=6)).to(dtype)
    wide = narrow.to(torch.float64)
    close = {"atol": 3e-2, "rtol": 1e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    for name, arguments in {
        "correlate": ("values", "rows", "residual"),
        "correlate_at": ("values", "rows", "residual", "index"),
        "synthesize": ("values", "rows", "index", "coefficient", "m"),
        "scatter_outer": ("rows", "index", "coefficient", "residual"),
    }.items():
        result = getattr(triton_gpu, name)(*(getattr(narrow, a) for a in arguments))
        exact = getattr(reference, name)(*(getattr(wide, a) for a in arguments))
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), exact, **close)
    index, value = triton_gpu.correlate_topk(narrow.values, narrow.rows, narrow.residual, narrow.bias, 6)
    expected, _ = reference.correlate_topk(wide.values, wide.rows, wide.residual, wide.bias, 6)
    assert value.dtype == dtype
    assert torch.equal(index, expected.sort(dim=1).values)


@pytest.mark.parametrize("w", [5, 20])
@pytest.mark.usefixtures("medium_precision")
def test_medium_precision_rounds_the_choice_and_not_the_values(w: int) -> None:
    p = there(problem(32, 60, w, 3, 6, seed=7)).to(torch.float32)
    index, value = triton_gpu.correlate_topk(p.values, p.rows, p.residual, p.bias, p.k)
    scores = reference.correlate(p.values, p.rows, p.residual) + p.bias
    torch.testing.assert_close(value, scores.gather(1, index), atol=1e-5, rtol=1e-5)
    least = scores.topk(p.k, dim=1).values[:, -1:]
    assert bool((value >= least - 2**-6 * scores.abs().amax()).all())


def test_gradients_of_a_tied_autoencoder(deterministic: bool) -> None:
    p = there(problem(12, 30, 3, 4, 5, seed=8))
    results = []
    for backend in (reference, triton_gpu):
        leaves = [t.clone().requires_grad_() for t in (p.values, p.bias, p.residual[0])]
        rebuilt, _, _ = tied_reconstruction(*leaves, p.residual, p.k, p.rows, backend)
        results.append(torch.autograd.grad((rebuilt - p.residual).square().sum(), leaves))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_empty_batch_and_wrong_arguments() -> None:
    p = there(problem(5, 6, 2, 1, 3, 0))
    none, no_index = p.residual[:0], p.index[:0]
    assert triton_gpu.correlate(p.values, p.rows, none).shape == (0, 6)
    assert triton_gpu.correlate_topk(p.values, p.rows, none, None, 2)[0].shape == (0, 2)
    assert triton_gpu.correlate_at(p.values, p.rows, none, no_index).shape == (0, 3)
    assert triton_gpu.synthesize(p.values, p.rows, no_index, p.coefficient[:0], 5).shape == (0, 5)
    assert not triton_gpu.scatter_outer(p.rows, no_index, p.coefficient[:0], none).any()
    for k in (0, 7):
        with pytest.raises(ValueError, match="expected 1 <= k <= n = 6"):
            triton_gpu.correlate_topk(p.values, p.rows, p.residual, None, k)
    with pytest.raises(TypeError, match=r"rows: found .*int64"):
        triton_gpu.correlate(p.values, p.rows.long(), p.residual)
    with pytest.raises(TypeError, match=r"found .*int32, expected a float"):
        triton_gpu.correlate(p.values, p.rows, p.rows)


@pytest.mark.skipif(not ON_GPU, reason="a full size needs a GPU")
@pytest.mark.parametrize("w", [7, 30, 102])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_full_size(w: int, dtype: torch.dtype, deterministic: bool) -> None:
    p = there(problem(2048, 16384, w, 100, 64, seed=9)).to(dtype)
    wide = p.to(torch.float64)
    scores = reference.correlate(wide.values, wide.rows, wide.residual) + wide.bias
    index, _ = triton_gpu.correlate_topk(p.values, p.rows, p.residual, p.bias, 64)
    least = scores.topk(64, dim=1).values[:, -1:]
    assert bool((scores.gather(1, index) >= least - 1e-3).all())
    assert bool((index[:, 1:] > index[:, :-1]).all())
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-4
    tied = (p.index, p.coefficient, p.residual.flip(0), p.residual)
    exact = reference.tied_gradients(
        wide.values, wide.rows, *(t.double() if t.is_floating_point() else t for t in tied)
    )
    for ours, theirs in zip(triton_gpu.tied_gradients(p.values, p.rows, *tied), exact, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < tolerance
