"""Every backend against dense float64 arithmetic, and against each other."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from expander_sae.kernels import dense, reference
from expander_sae.kernels.backends import select

from .problems import Problem, problem, problems

CLOSE = {"atol": 1e-10, "rtol": 1e-10}


@pytest.fixture(params=["torch", "numba"])
def backend(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "numba":
        pytest.importorskip("numba", reason="the numba extra is not installed")
    return select(request.param)


def stable_topk(scores: Tensor, k: int) -> Tensor:
    """Indices of the k largest, lowest index first among equals, NaN largest; ascending."""
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values


def assert_is_topk(index: Tensor, value: Tensor, scores: Tensor, k: int) -> None:
    """The right set; where rounding can reorder near-ties, the same values."""
    assert index.shape == value.shape == (scores.shape[0], k)
    torch.testing.assert_close(scores.gather(1, index), value, **CLOSE, equal_nan=True)
    ascending = index.sort(dim=1).values
    assert bool((ascending[:, 1:] > ascending[:, :-1]).all())
    torch.testing.assert_close(
        value.sort(dim=1).values,
        scores.gather(1, stable_topk(scores, k)).sort(dim=1).values,
        **CLOSE,
        equal_nan=True,
    )


@settings(max_examples=40, deadline=None)
@given(p=problems())
@pytest.mark.parametrize("name", ["torch", "numba"])
def test_operations_equal_dense_arithmetic(name: str, p: Problem) -> None:
    if name == "numba":
        pytest.importorskip("numba", reason="the numba extra is not installed")
    ops = select(name)
    weight, empty = p.weight(), p.index < 0
    scores = p.residual @ weight.t()
    code = p.code(p.coefficient)
    outer = (code.t() @ p.residual).gather(1, p.rows.long())

    torch.testing.assert_close(ops.correlate(p.values, p.rows, p.residual), scores, **CLOSE)
    at = scores.gather(1, p.index.clamp(min=0)).masked_fill(empty, 0)
    torch.testing.assert_close(ops.correlate_at(p.values, p.rows, p.residual, p.index), at, **CLOSE)
    torch.testing.assert_close(
        ops.synthesize(p.values, p.rows, p.index, p.coefficient, p.m), code @ weight, **CLOSE
    )
    torch.testing.assert_close(ops.scatter_outer(p.rows, p.index, p.coefficient, p.residual), outer, **CLOSE)

    for bias in (p.bias, None):
        biased = scores if bias is None else scores + bias
        index, value = ops.correlate_topk(p.values, p.rows, p.residual, bias, p.k)
        assert_is_topk(index, value, biased, p.k)


@settings(max_examples=40, deadline=None)
@given(p=problems())
def test_dense_columns_equal_dense_arithmetic(p: Problem) -> None:
    weight, empty = p.weight(), p.index < 0
    scores, code = p.residual @ weight.t(), p.code(p.coefficient)
    torch.testing.assert_close(dense.correlate(weight, p.residual), scores, **CLOSE)
    at = scores.gather(1, p.index.clamp(min=0)).masked_fill(empty, 0)
    torch.testing.assert_close(dense.correlate_at(weight, p.residual, p.index), at, **CLOSE)
    torch.testing.assert_close(dense.synthesize(weight, p.index, p.coefficient), code @ weight, **CLOSE)
    torch.testing.assert_close(
        dense.scatter_outer(p.n, p.index, p.coefficient, p.residual), code.t() @ p.residual, **CLOSE
    )
    assert_is_topk(*dense.correlate_topk(weight, p.residual, p.bias, p.k), scores + p.bias, p.k)


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "nan", "infinite"])
@pytest.mark.parametrize("k", [1, 7, 64, 900, 1000])
def test_topk_by_rule(backend: ModuleType, kind: str, k: int) -> None:
    """One entry a column and a residual of ones: the scores are the values, without rounding."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1000, generator=generator, dtype=torch.float64)
    if kind == "ties":
        scores = scores.round()
    if kind == "equal":
        scores = torch.full_like(scores, -2.5)
    if kind == "nan":
        scores[torch.rand(1000, generator=generator) < 0.05] = torch.nan
    if kind == "infinite":
        scores[torch.rand(1000, generator=generator) < 0.5] = -torch.inf
        scores[:5] = torch.inf
    rows = torch.zeros(1000, 1, dtype=torch.int32)
    residual = torch.ones(3, 1, dtype=torch.float64)
    index, value = backend.correlate_topk(torch.zeros(1000, 1).double(), rows, residual, scores, k)
    expected = stable_topk(scores[None], k).expand(3, k)
    assert torch.equal(index.sort(dim=1).values, expected)
    torch.testing.assert_close(value, scores[index], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "nan", "rising"])
@pytest.mark.parametrize("k", [1, 7, 40, 299])
def test_topk_across_chunks(kind: str, k: int, backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that run on from chunk to chunk, and fill up on the way."""
    chunk = "FEATURE_TILE" if backend is reference else "SCORED_FEATURES"
    monkeypatch.setattr(backend, chunk, 37)
    scores = torch.randn(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if kind == "ties":
        scores = (2 * scores).round()
    if kind == "equal":
        scores = torch.zeros_like(scores)
    if kind == "nan":
        scores[::3] = torch.nan
    if kind == "rising":
        scores = scores.sort().values
    rows, values = torch.zeros(300, 1, dtype=torch.int32), torch.zeros(300, 1, dtype=torch.float64)
    index, value = backend.correlate_topk(values, rows, torch.ones(70, 1).double(), scores, k)
    assert torch.equal(index.sort(dim=1).values, stable_topk(scores[None], k).expand(70, k))
    torch.testing.assert_close(value, scores[index], rtol=0, atol=0, equal_nan=True)


def test_sums_of_all_columns_go_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(9, 300, 4, 3, 250, 0)
    whole = reference.synthesize(p.values, p.rows, p.index, p.coefficient, p.m)
    monkeypatch.setattr(reference, "_ELEMENTS", 37)
    assert torch.equal(reference.synthesize(p.values, p.rows, p.index, p.coefficient, p.m), whole)


def test_topk_refuses_k_out_of_range(backend: ModuleType) -> None:
    p = problem(5, 6, 2, 2, 3, 0)
    for k in (0, 7):
        with pytest.raises(ValueError, match="expected 1 <= k <= n = 6"):
            backend.correlate_topk(p.values, p.rows, p.residual, None, k)


def test_empty_batch(backend: ModuleType) -> None:
    p = problem(5, 6, 2, 1, 3, 0)
    none, no_index = p.residual[:0], p.index[:0]
    assert backend.correlate(p.values, p.rows, none).shape == (0, 6)
    assert backend.correlate_topk(p.values, p.rows, none, None, 2)[0].shape == (0, 2)
    assert backend.correlate_at(p.values, p.rows, none, no_index).shape == (0, 3)
    assert backend.synthesize(p.values, p.rows, no_index, p.coefficient[:0], 5).shape == (0, 5)
    assert not backend.scatter_outer(p.rows, no_index, p.coefficient[:0], none).any()


def test_float32_is_close_to_float64(backend: ModuleType) -> None:
    p = problem(64, 300, 9, 130, 12, 1)
    single = p.to(torch.float32)
    for name, arguments in {
        "correlate": ("values", "rows", "residual"),
        "correlate_at": ("values", "rows", "residual", "index"),
        "synthesize": ("values", "rows", "index", "coefficient", "m"),
        "scatter_outer": ("rows", "index", "coefficient", "residual"),
    }.items():
        exact = getattr(backend, name)(*(getattr(p, a) for a in arguments))
        result = getattr(backend, name)(*(getattr(single, a) for a in arguments))
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, exact.float(), atol=1e-5, rtol=1e-5)


def test_tied_gradients_are_the_gradients(backend: ModuleType) -> None:
    p = problem(20, 50, 4, 70, 6, 2)
    values = p.values.clone().requires_grad_()
    residual = p.residual.clone().requires_grad_()
    bias = p.bias.clone().requires_grad_()
    weight = torch.zeros(p.n, p.m, dtype=torch.float64).scatter_add(1, p.rows.long(), values)
    z = (residual @ weight.t() + bias).gather(1, p.index.clamp(min=0)).masked_fill(p.index < 0, 0)
    error = torch.randn(p.residual.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ((p.code(z) @ weight) * error).sum().backward()
    d_values, d_bias = backend.tied_gradients(p.values, p.rows, p.index, z.detach(), error, p.residual)
    torch.testing.assert_close(d_values, values.grad, **CLOSE)
    torch.testing.assert_close(d_bias, bias.grad, **CLOSE)
    everything = torch.arange(p.n)[None]
    into_residual = backend.synthesize(p.values, p.rows, everything, d_bias[None], p.m)[0]
    torch.testing.assert_close(into_residual, residual.grad.sum(0), **CLOSE)

    d_weight, d_bias = dense.tied_gradients(p.weight(), p.index, z.detach(), error, p.residual)
    torch.testing.assert_close(d_weight.gather(1, p.rows.long()), values.grad, **CLOSE)
    torch.testing.assert_close(d_bias, bias.grad, **CLOSE)


def test_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting the batch for memory changes nothing."""
    p = problem(20, 50, 4, 70, 6, 3)

    def everything() -> list[Tensor]:
        return [
            reference.correlate_at(p.values, p.rows, p.residual, p.index),
            reference.synthesize(p.values, p.rows, p.index, p.coefficient, p.m),
            reference.scatter_outer(p.rows, p.index, p.coefficient, p.residual),
            *reference.correlate_topk(p.values, p.rows, p.residual, p.bias, p.k),
        ]

    whole = everything()
    monkeypatch.setattr(reference, "_ELEMENTS", 100)
    monkeypatch.setattr(reference, "BATCH_TILE", 16)
    for a, b in zip(whole, everything(), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_numba_does_not_depend_on_the_number_of_threads() -> None:
    pytest.importorskip("numba", reason="the numba extra is not installed")
    ops = select("numba")
    p = problem(30, 200, 5, 300, 9, 4).to(torch.float32)

    def everything() -> list[Tensor]:
        return [
            *ops.correlate_topk(p.values, p.rows, p.residual, p.bias, p.k),
            ops.correlate(p.values, p.rows, p.residual),
            ops.correlate_at(p.values, p.rows, p.residual, p.index),
            ops.synthesize(p.values, p.rows, p.index, p.coefficient, p.m),
            ops.scatter_outer(p.rows, p.index, p.coefficient, p.residual),
            *ops.tied_gradients(p.values, p.rows, p.index, p.coefficient, p.residual, p.residual),
            *ops.omp(p.values, p.rows, p.residual, p.residual.norm(dim=1) * 1e-3, 5, False),
        ]

    before = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_numba_refuses_other_kinds_of_numbers() -> None:
    pytest.importorskip("numba", reason="the numba extra is not installed")
    p = problem(5, 6, 2, 2, 3, 0)
    with pytest.raises(TypeError, match="float32"):
        select("numba").correlate(p.values, p.rows, p.residual.float())


@pytest.mark.parametrize("n", [5, (1 << 16) - 1, 1 << 16])
def test_places_of_a_feature_are_together_and_in_order(n: int) -> None:
    index = torch.randint(-1, n, (40, 9), generator=torch.Generator().manual_seed(0))
    index[0, :3] = torch.tensor([-1, 0, n - 1])
    order, starts = reference.by_feature(index, n)
    flat = index.flatten()
    assert starts[0] == 0 and starts[-1] == len(order) == int((flat >= 0).sum())
    for j in flat.unique().tolist():
        if j >= 0:
            assert torch.equal(order[starts[j] : starts[j + 1]], (flat == j).nonzero()[:, 0])
