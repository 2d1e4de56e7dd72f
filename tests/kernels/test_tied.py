from __future__ import annotations

import pytest
import torch

from expander_sae.kernels.backends import select
from expander_sae.kernels.tied import tied_reconstruction, tied_step

from .problems import problem


@pytest.mark.parametrize("kind", ["torch", "numba", "dense"])
def test_gradients_equal_those_of_dense_autograd(kind: str) -> None:
    if kind == "numba":
        pytest.importorskip("numba", reason="the numba extra is not installed")
    p = problem(20, 60, 4, 70, 6, 0)
    b_dec = torch.linspace(-1, 1, p.m, dtype=torch.float64)
    values, b_enc, b_dec = (t.clone().requires_grad_() for t in (p.values, p.bias, b_dec))

    weight = torch.zeros(p.n, p.m, dtype=torch.float64).scatter_add(1, p.rows.long(), values)
    z = (p.residual - b_dec) @ weight.t() + b_enc
    kept, places = z.topk(p.k, dim=1)
    expected = torch.zeros_like(z).scatter(1, places, kept) @ weight + b_dec
    wanted = torch.autograd.grad((expected - p.residual).square().sum(), (values, b_enc, b_dec))

    if kind == "dense":
        columns = torch.zeros(p.n, p.m, dtype=torch.float64).scatter_add(1, p.rows.long(), values)
        result, index, value = tied_reconstruction(columns, b_enc, b_dec, p.residual, p.k)
    else:
        result, index, value = tied_reconstruction(
            values, b_enc, b_dec, p.residual, p.k, p.rows, select(kind)
        )
    found = torch.autograd.grad((result - p.residual).square().sum(), (values, b_enc, b_dec))

    torch.testing.assert_close(result, expected, atol=1e-10, rtol=1e-10)
    assert torch.equal(index.sort(dim=1).values, places.sort(dim=1).values)
    assert not value.requires_grad
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["torch", "numba", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 70, 129])
def test_step_without_autograd_is_the_same_to_the_last_bit(kind: str, dtype: torch.dtype, batch: int) -> None:
    if kind == "numba":
        pytest.importorskip("numba", reason="the numba extra is not installed")
    p = problem(20, 60, 4, batch, 6, 0).to(dtype)
    b_dec = torch.linspace(-1, 1, p.m, dtype=dtype)
    if kind == "dense":
        given, support = (p.weight(), p.bias, b_dec), (None, None)
    else:
        given, support = (p.values, p.bias, b_dec), (p.rows, select(kind))

    leaves = [t.clone().requires_grad_() for t in given]
    rebuilt, index, value = tied_reconstruction(*leaves, p.residual, p.k, *support)
    (rebuilt - p.residual).square().sum(dim=1).mean().backward()

    step = tied_step(*given, p.residual, p.k, *support)
    assert torch.equal(step.rebuilt, rebuilt)
    assert torch.equal(step.index, index) and torch.equal(step.value, value)
    for found, leaf in zip((step.d_columns, step.d_enc, step.d_dec), leaves, strict=True):
        assert leaf.grad is not None
        assert torch.equal(found, leaf.grad)


@pytest.mark.parametrize("kind", ["torch", "numba", "dense"])
def test_a_step_on_nothing_has_no_gradient(kind: str) -> None:
    if kind == "numba":
        pytest.importorskip("numba", reason="the numba extra is not installed")
    p = problem(20, 60, 4, 1, 6, 0)
    columns, *support = (p.weight(), None, None) if kind == "dense" else (p.values, p.rows, select(kind))
    step = tied_step(columns, p.bias, torch.zeros(p.m, dtype=torch.float64), p.residual[:0], p.k, *support)
    assert step.rebuilt.shape == (0, p.m)
    assert not step.d_columns.any() and not step.d_enc.any() and not step.d_dec.any()
