from __future__ import annotations

import pytest
import torch

from expander_sae.kernels import select
from expander_sae.kernels.tied import tied_reconstruction

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
