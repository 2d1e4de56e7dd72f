"""What each decoder that is made of others is by its definition: hybrid, spectral, grown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from expander_sae import SparseAutoencoder, Trainer
from expander_sae.evaluation.storage import storage
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.masks.supports import support_of
from expander_sae.model.grown import Grown
from expander_sae.model.spectral import Spectral
from expander_sae.rng import torch_generator
from tests.model.made_decoders import (
    D,
    K,
    M,
    N,
    batch,
    close,
    made,
    matrix,
    trained,
    written,
)
from tests.training.small_data import few_directions


def test_a_hybrid_has_the_values_of_an_expander() -> None:
    """Of 30 nonzeros at the width of SmolLM2: never more, and less than a column fewer."""
    for percent, (core, inner) in {50: (123, 15), 25: (66, 22), 80: (194, 6)}.items():
        pieces = support_of("hybrid" if percent == 50 else f"hybrid{percent}").computed_with(576, 4608, 30)
        assert [(piece.n, piece.d) for piece in pieces] == [(core, 576), (4608 - core, inner)]
        assert 0 <= 30 * 4608 - (core * 576 + (4608 - core) * inner) < 576


def test_components_are_drawn_in_proportion_to_their_deviations() -> None:
    """The first of two components: of 4,000 columns, within five standard errors."""
    sae = SparseAutoencoder(M, 4000, 1, MaskRecipe("spectral2", M, 4000, 1, 0))
    assert isinstance(sae.decoder, Spectral)
    sae.decoder.fill(torch.tensor([9.0, 1.0]), torch.eye(2, M))
    assert sae.decoder.weights.tolist() == [4095, 1365]
    share = float((sae.decoder.rows == 0).double().mean())
    assert abs(share - 0.75) < 5 * (0.75 * 0.25 / 4000) ** 0.5


def test_a_spectral_start_is_the_principal_components_of_the_kept_tokens() -> None:
    h = few_directions(torch.float64)
    sae = Trainer(h.float(), support="spectral18", n=N, d=D, k=K, device="cpu").fit(1)
    assert isinstance(sae.decoder, Spectral)
    variance, vectors = np.linalg.eigh(np.cov(h.numpy().T, bias=True))
    cosines = (sae.decoder.basis.double().numpy() * vectors[:, ::-1].T[:18]).sum(axis=1)
    np.testing.assert_allclose(abs(cosines), 1, atol=1e-5)
    expected = np.rint(4095 * np.sqrt(variance[::-1][:18] / variance[-1]))
    np.testing.assert_allclose(sae.decoder.weights.numpy(), expected, atol=1)


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_a_basis_of_few_bits_is_used_as_an_orthonormal_one(precision: str) -> None:
    sae = trained("spectral18").stored(precision)
    assert isinstance(sae.decoder, Spectral)
    directions = sae.decoder.directions().double()
    torch.testing.assert_close(directions @ directions.T, torch.eye(18).double(), rtol=0, atol=1e-6)
    counted = storage(sae)
    assert counted["storage_shared_bytes"] == 18 * M * (4 if precision == "float32" else 1)
    assert counted["storage_own_bytes"] == counted["storage_total_bytes"] - counted["storage_shared_bytes"]


def test_growth_exchanges_the_smallest_values_for_the_largest_gradients() -> None:
    """Of each column, as a loop over the gradient of the whole matrix finds them."""
    sae, h = made("grown"), batch(9, 30)
    assert isinstance(sae.decoder, Grown)
    rows, values = sae.decoder.rows.long(), sae.values.detach().clone()
    code = sae.encode(h)
    error, centred = sae.decode(code) - h, h - sae.b_dec.detach()
    weight = matrix(sae).requires_grad_()
    kept = (written(code) != 0).to(torch.float64)
    scores = (centred @ weight.T + sae.b_enc.detach()) * kept
    (0.5 * (scores @ weight + sae.b_dec.detach() - h).square().sum()).backward()
    assert weight.grad is not None
    moved = sae.decoder.grow(0.5, code, error, centred)
    for column in range(N):
        gradient = weight.grad[column].abs()
        outside = [row for row in gradient.sort(descending=True).indices.tolist() if row not in rows[column]]
        count = 3 if gradient.any() else 0
        stay = values[column].abs().sort(descending=True).indices[: D - count].tolist()
        expected = {int(rows[column, place]): float(values[column, place]) for place in stay}
        expected |= dict.fromkeys(outside[:count], 0.0)
        now = dict(zip(sae.decoder.rows[column].tolist(), sae.values[column].tolist(), strict=True))
        assert now == expected
        assert moved[column][moved[column] >= 0].sort().values.tolist() == sorted(stay)


class Largest(TorchDispatchMode):
    """The most numbers of a tensor that anything makes."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made_ = func(*args, **(kwargs or {}))
        for one in made_ if isinstance(made_, tuple | list) else [made_]:
            self.most = max(self.most, one.numel() if isinstance(one, Tensor) else 0)
        return made_


def test_growth_holds_no_matrix_of_all_columns_and_rows() -> None:
    """Nothing larger than the values or the batch."""
    m, n, d, size = 100, 300, 4, 10
    sae = SparseAutoencoder(m, n, K, MaskRecipe("grown", m, n, d, 0), backend="torch")
    sae.initialise(torch_generator(0, "growth"))
    h = torch.randn(size, m, generator=torch_generator(1, "growth"))
    code = sae.encode(h)
    with Largest() as seen:
        assert (sae.decoder.grow(0.5, code, sae.decode(code) - h, h) < 0).any()
    assert seen.most <= max(n * d, size * m)


def test_a_re_aimed_column_takes_the_rows_of_its_sample() -> None:
    sae, residual = made("grown"), batch(4)
    sae.aim(torch.tensor([3, 50]), residual, torch.tensor([6, 2]))
    for column, sample in ((3, 6), (50, 2)):
        best = residual[sample].abs().topk(D).indices
        expected = torch.zeros(M, dtype=torch.float64).scatter(0, best, residual[sample][best])
        close(sae.dictionary().columns(torch.tensor(column)), expected / expected.norm())
