"""Reconstruction metrics against their definitions, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expander_sae.evaluation.reconstruction import measure, reconstruct
from expander_sae.machine.piece_sizes import EVALUATED_TOKENS
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.inference import inferences
from expander_sae.rng import torch_generator


def autoencoder() -> SparseAutoencoder:
    made = SparseAutoencoder(16, 64, 4, MaskRecipe("expander", 16, 64, 5, 0).generate(), backend="torch")
    made.initialise(torch_generator(0, "initialisation"))
    with torch.no_grad():
        made.b_dec.normal_(generator=torch_generator(0, "b_dec"))
        made.b_enc[:10] = -100.0
    return made


@pytest.mark.parametrize("name", ["encoder", "omp"])
def test_metrics_are_their_definitions(name: str) -> None:
    sae = autoencoder()
    tokens = EVALUATED_TOKENS + 37
    h = torch.randn(tokens, 16, generator=torch_generator(1, "h")) + 2
    rebuilt, sums = reconstruct(sae, h.numpy(), inferences(name))
    code = inferences(name)(sae, h)
    expected = sae.decode(code).double()
    np.testing.assert_allclose(rebuilt, expected.numpy(), rtol=1e-5, atol=1e-5)
    wide = h.double()
    error = wide - expected
    summary = sums.summary()
    assert summary["relative_error"] == pytest.approx(
        float((error.norm(dim=1) / wide.norm(dim=1)).mean()), rel=1e-6
    )
    deviation = (wide - wide.mean(0)).square().sum()
    assert summary["explained_variance"] == pytest.approx(
        1 - float(error.square().sum() / deviation), rel=1e-5
    )
    used = set(code.index[code.value != 0].tolist())
    assert summary["dead_fraction"] == pytest.approx(1 - len(used) / 64)
    assert summary["l0"] == pytest.approx(float((code.value != 0).sum(1).double().mean()))


def test_features_with_hopeless_biases_count_as_dead() -> None:
    _, sums = reconstruct(autoencoder(), np.ones((5, 16), dtype=np.float32), inferences("encoder"))
    assert not sums.ever_fired[:10].any()


def test_omp_beats_the_encoder_at_the_same_k() -> None:
    sae = autoencoder()
    h = torch.randn(200, 16, generator=torch_generator(1, "h")).numpy()
    errors = {
        name: reconstruct(sae, h, inferences(name))[1].summary()["relative_error"]
        for name in ("encoder", "omp")
    }
    assert errors["omp"] < 0.9 * errors["encoder"]


def test_empty_places_do_not_fire() -> None:
    def nothing(sae: SparseAutoencoder, h: torch.Tensor) -> SparseCode:
        return SparseCode(torch.full((len(h), 4), -1), torch.zeros(len(h), 4))

    sae = autoencoder()
    rebuilt, sums = reconstruct(sae, np.ones((3, 16), dtype=np.float32), nothing)
    np.testing.assert_array_equal(rebuilt, sae.b_dec.detach().numpy()[None].repeat(3, 0))
    assert sums.summary()["l0"] == 0 and sums.summary()["dead_fraction"] == 1
    assert np.isnan(sums.summary()["explained_variance"]), "constant activations have no variance to explain"


@pytest.mark.parametrize("name", ["encoder", "omp"])
def test_measuring_chosen_rows_is_rebuilding_them(name: str) -> None:
    sae = autoencoder()
    h = torch.randn(2 * EVALUATED_TOKENS + 5, 16, generator=torch_generator(1, "h")).numpy() + 2
    rows = np.flatnonzero(np.arange(len(h)) % 3)
    h[rows[4]] = 0
    rebuilt, expected = reconstruct(sae, h[rows], inferences(name))
    found, cosine = measure(sae, h, inferences(name), rows)
    for field in ("squared_error", "squared_norm", "active", "ever_fired"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=field)
    np.testing.assert_allclose(found.squared_deviation, expected.squared_deviation, rtol=1e-12)
    wide, out = h[rows].astype(np.float64), rebuilt.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(out, axis=1)
    inner = (wide * out).sum(axis=1)
    assert cosine == pytest.approx(float(np.divide(inner, lengths, where=lengths > 0, out=0 * inner).mean()))
    whole, _ = measure(sae, torch.from_numpy(h).bfloat16(), inferences(name))
    assert len(whole.squared_error) == len(h)
