"""Dense operations as whole products against those that gather, in float64 and rounded to bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from expander_sae.kernels import dense, dense_products, tied

from .test_backends import CLOSE

SHAPES = [(5, 9, 3, 2), (24, 150, 70, 6), (6, 40, 1, 40), (3, 1, 4, 1)]


@pytest.fixture
def medium_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def given(m: int, n: int, batch: int, k: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(m + n)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weight = draw(n, m)
    index = torch.rand(batch, n, generator=generator).topk(k, dim=1).indices
    index[0, 0] = -1
    biases = {"b_enc": draw(n), "b_dec": draw(m)}
    unit = weight / weight.norm(dim=1, keepdim=True)
    return {"weight": unit, "index": index, "value": draw(batch, k), "h": draw(batch, m), **biases}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_operation_is_that_of_dense(shape: tuple[int, int, int, int]) -> None:
    p, n, k = given(*shape), shape[1], shape[3]
    at = p["weight"], p["h"], p["index"]
    torch.testing.assert_close(dense_products.correlate(*at[:2]), dense.correlate(*at[:2]), **CLOSE)
    torch.testing.assert_close(dense_products.correlate_at(*at), dense.correlate_at(*at), **CLOSE)
    code = p["index"], p["value"]
    found, expected = (module.synthesize(p["weight"], *code) for module in (dense_products, dense))
    torch.testing.assert_close(found, expected, **CLOSE)
    found, expected = (module.scatter_outer(n, *code, p["h"]) for module in (dense_products, dense))
    torch.testing.assert_close(found, expected, **CLOSE)
    for bias in (p["b_enc"], None):
        found, expected = (module.correlate_topk(*at[:2], bias, k)[0] for module in (dense_products, dense))
        assert torch.equal(found.sort(dim=1).values, expected.sort(dim=1).values)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_of_five_products_is_the_tied_step(shape: tuple[int, int, int, int]) -> None:
    p, k = given(*shape), shape[3]
    arguments = p["weight"], p["b_enc"], p["b_dec"], p["h"], k
    found, expected = tied.TiedStep(*dense_products.tied_step(*arguments)), tied.tied_step(*arguments)
    assert torch.equal(found.index.sort(dim=1).values, expected.index.sort(dim=1).values)
    for name in ("rebuilt", "d_columns", "d_enc", "d_dec"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **CLOSE)


def test_at_medium_precision_inputs_are_rounded_and_sums_are_not(medium_precision: None) -> None:
    """A code of bfloat16 would lose the values' third digit and sums of 512 terms their second."""
    p = given(512, 256, 40, 8, torch.float32)
    exact = tied.tied_step(*(p[name].double() for name in ("weight", "b_enc", "b_dec", "h")), 8)
    found = tied.TiedStep(*dense_products.tied_step(p["weight"], p["b_enc"], p["b_dec"], p["h"], 8))
    assert found.d_columns.dtype == found.rebuilt.dtype == torch.float32
    same = (found.index.sort(dim=1).values == exact.index.sort(dim=1).values).all(dim=1)
    assert same.float().mean() > 0.7
    error = (found.rebuilt[same].double() - exact.rebuilt[same]).norm() / exact.rebuilt[same].norm()
    assert 1e-4 < error < 5e-3
    gradient = (found.d_enc.double() - exact.d_enc).norm() / exact.d_enc.norm()
    assert gradient < 0.3


def test_no_sample_gives_an_empty_code() -> None:
    p = given(5, 9, 3, 2)
    index, value = dense_products.correlate_topk(p["weight"], p["h"][:0], None, 2)
    assert index.shape == value.shape == (0, 2)
    with pytest.raises(ValueError, match="expected 1 <= k <= n = 9"):
        dense_products.correlate_topk(p["weight"], p["h"], None, 10)


def test_where_products_are_taken_all_operations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of `dense`, as on a GPU."""
    p = given(24, 150, 70, 6)
    arguments = p["weight"], p["b_enc"], p["b_dec"], p["h"], 6
    gathered = tied.tied_step(*arguments)
    monkeypatch.setattr(dense, "by_products", lambda tensor: True)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    for name in ("rebuilt", "d_columns", "d_enc", "d_dec"):
        torch.testing.assert_close(
            getattr(tied.tied_step(*arguments), name), getattr(gathered, name), **CLOSE
        )
