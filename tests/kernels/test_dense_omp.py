"""Pursuit by the Gram matrix against `block_omp`, which computes each residual anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from expander_sae.kernels import dense_omp
from expander_sae.model.dictionary import DenseDictionary
from expander_sae.pursuit.block_omp import block_omp, score_limit

pytest.importorskip("numba", reason="the numba extra is not installed")


def weight_of(n: int, m: int, seed: int = 0) -> Tensor:
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, m)))
    return drawn / drawn.norm(dim=1, keepdim=True)


def targets(batch: int, m: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, m)))


def by_gram(weight: Tensor, target: Tensor, k: int, absolute: bool = False) -> tuple[Tensor, Tensor]:
    return dense_omp.omp(weight, target, score_limit(target, 0.0), k, absolute)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("n", "m", "k"), [(40, 16, 16), (2500, 24, 12), (1024, 8, 3), (5, 9, 5)])
def test_same_code_as_from_fresh_residuals(n: int, m: int, k: int, absolute: bool) -> None:
    weight, target = weight_of(n, m), targets(7, m)
    expected = block_omp(DenseDictionary(weight), target, k, 1, "absolute" if absolute else "signed")
    index, value = by_gram(weight, target, k, absolute)
    assert torch.equal(index, expected.index)
    torch.testing.assert_close(value, expected.value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stops_where_the_target_is_explained(dtype: torch.dtype) -> None:
    weight = weight_of(1500, 64).to(dtype)
    held = torch.tensor([3, 700, 1400])
    target = (weight[held] * torch.tensor([3.0, 2.0, 1.0], dtype=dtype)[:, None]).sum(0)[None]
    index, value = by_gram(weight, target, 10)
    assert index[0, :3].tolist() == held.tolist()
    assert index[0, 3:].tolist() == [-1] * 7
    torch.testing.assert_close(value[0, :3], torch.tensor([3.0, 2.0, 1.0], dtype=dtype), rtol=1e-4, atol=1e-4)


def test_passes_over_copies_of_a_held_column() -> None:
    weight = weight_of(20, 6).repeat(3, 1)
    target = targets(4, 6)
    expected = block_omp(DenseDictionary(weight), target, 6, 1, "signed")
    index, value = by_gram(weight, target, 6)
    assert torch.equal(index % 20, expected.index % 20)  # which copy is a matter of rounding
    torch.testing.assert_close(value, expected.value, rtol=1e-8, atol=1e-8)


def test_zero_and_nan_targets_have_empty_codes() -> None:
    target = torch.stack([torch.zeros(6), torch.full((6,), torch.nan)]).double()
    index, value = by_gram(weight_of(30, 6), target, 4)
    assert bool((index == -1).all())
    assert not bool(value.any())


def test_threads_change_no_bit() -> None:
    weight, target = weight_of(200, 16).float(), targets(9, 16).float()
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(by_gram(weight, target, 8))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)  # the products are BLAS's


def test_serves_only_what_fits_and_pays() -> None:
    weight = torch.zeros(64, 4)
    assert dense_omp.serves(weight, batch=32, k=8)
    assert not dense_omp.serves(weight, batch=1, k=8)
    assert not dense_omp.serves(weight.half(), batch=32, k=8)
    assert not dense_omp.serves(torch.zeros(1, 1).expand(40_000, 4), batch=10_000, k=64)


@pytest.mark.parametrize(("n", "m", "k"), [(400, 12, 12), (2000, 56, 64)])
def test_as_near_as_fresh_residuals_in_single_precision(n: int, m: int, k: int) -> None:
    """Where k reaches all dimensions the residual falls by five orders; rounding decides the last picks."""
    weight, target = weight_of(n, m).float(), targets(60, m).float()

    def left(index: Tensor, value: Tensor) -> Tensor:
        chosen = weight.double()[index.clamp(min=0)] * (index >= 0).unsqueeze(-1)
        rebuilt = (value.double().unsqueeze(-1) * chosen).sum(1)
        return (target.double() - rebuilt).norm(dim=1) / target.double().norm(dim=1)

    fresh = block_omp(DenseDictionary(weight), target, k, 1, "signed")
    expected = float(left(fresh.index, fresh.value).median())
    assert float(left(*by_gram(weight, target, k)).median()) < 2 * expected < 1e-4
