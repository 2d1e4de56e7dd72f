"""Encoders that select by thresholds, against dense float64 arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import expander_sae
from expander_sae import MaskRecipe, SparseAutoencoder, SparseCode
from expander_sae.errors import UserError
from expander_sae.evaluation.storage import storage
from expander_sae.model.dictionary import joined
from expander_sae.pursuit.budget import budgeted
from expander_sae.pursuit.inference import INFERENCES
from expander_sae.rng import torch_generator

M, N, D = 16, 400, 5


def made(family: str = "expander", k: int = N, backend: str = "torch") -> SparseAutoencoder:
    """Of a free encoder, and of which a token has from none to far more features than are looked at first."""
    mask = None if family == "dense" else MaskRecipe(family, M, N, D, seed=1).generate()
    sae = SparseAutoencoder(M, N, k, mask, "independent", backend)
    sae.initialise(torch_generator(0, "weights"))
    with torch.no_grad():
        sae.b_dec.normal_(generator=torch_generator(1, "b_dec"))
    sae.thresholds = 0.3 * torch.rand(N, generator=torch_generator(2, "thresholds"))
    return sae


def activations() -> torch.Tensor:
    h = torch.randn(60, M, generator=torch_generator(3, "h"))
    return torch.cat([h * torch.linspace(0.1, 3, 60)[:, None], made().b_dec.detach()[None]])


def scores(sae: SparseAutoencoder, h: torch.Tensor) -> torch.Tensor:
    e = sae._encoder_on(sae.dictionary()).columns(torch.arange(N)).double()
    return ((h - sae.b_dec).double() @ e.T + sae.b_enc.double()).detach()


def dense(code: SparseCode) -> torch.Tensor:
    """[B, n]; an index −1 must have value 0."""
    assert not code.value[code.index < 0].any()
    empty = torch.zeros(len(code.index), N, dtype=code.value.dtype)
    return empty.scatter_add(1, code.index.clamp(min=0), code.value)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("family", ["expander", "bernoulli", "dense"])
def test_what_exceeds_its_threshold_is_kept(family: str, backend: str) -> None:
    sae, h = made(family, backend=backend), activations()
    z = scores(sae, h)
    assert sae.thresholds is not None
    expected = torch.where(z > sae.thresholds, z, 0.0)
    counts = (expected != 0).sum(dim=1)
    assert counts.min() == 0 and counts.max() > 128, "more than are looked at first"
    code = sae.encode(h)
    assert torch.equal(dense(code) != 0, expected != 0)
    assert torch.allclose(dense(code).double(), expected, atol=1e-5)
    assert code.index.shape[1] == counts.max(), "as wide as the token with the most"
    w = sae.dictionary().columns(torch.arange(N)).double()
    assert torch.allclose(sae.decode(code).double(), expected @ w + sae.b_dec.double(), atol=1e-5)


def test_beside_top_k_a_threshold_of_0_is_a_relu() -> None:
    sae, h = made(k=150), activations()
    with torch.no_grad():
        sae.b_enc.sub_(0.2)
    sae.thresholds = torch.zeros(N)
    value, index = scores(sae, h).topk(150, dim=1)
    expected = torch.zeros(len(h), N).double().scatter(1, index, value.relu())
    counts = (expected != 0).sum(dim=1)
    assert counts.min() < counts.max() == 150, "both decide"
    assert torch.allclose(dense(sae.encode(h)).double(), expected, atol=1e-5)
    assert not sae.counts_vary and made().counts_vary


def test_training_mode_gives_the_same_code_and_its_gradient() -> None:
    sae, h = made(), activations()
    rebuilt, code = sae(h)
    assert torch.equal(code.value.detach(), sae.encode(h).value)
    (rebuilt - h).square().sum().backward()
    found = sae.b_enc.grad
    assert found is not None
    b_enc = sae.b_enc.detach().clone().requires_grad_()
    e, w = (part.columns(torch.arange(N)) for part in (sae._encoder_on(sae.dictionary()), sae.dictionary()))
    z = (h - sae.b_dec.detach()) @ e.T + b_enc
    assert sae.thresholds is not None
    written = torch.where(z > sae.thresholds, z, 0.0) @ w + sae.b_dec.detach()
    (written - h).square().sum().backward()
    assert b_enc.grad is not None and torch.allclose(found, b_enc.grad, atol=1e-3, rtol=1e-4)


def test_it_comes_back_from_its_file_and_scales(tmp_path: Path) -> None:
    sae, h = made(), activations()
    code = sae.encode(h)
    path = sae.save(tmp_path / "sae.safetensors")
    again = expander_sae.load(path, backend="torch")
    assert again.counts_vary and torch.equal(again.encode(h).value, code.value)
    again.rescale(4.0)
    assert torch.equal(again.encode(h / 4).value, code.value / 4)
    assert storage(sae)["storage_encoder_bytes"] == storage(again)["storage_encoder_bytes"]
    sae.thresholds = None
    assert storage(again)["storage_encoder_bytes"] - storage(sae)["storage_encoder_bytes"] == 4 * N
    assert b"expander-sae/3" in path.read_bytes(), "so that a version that knows no thresholds refuses it"


def test_a_pursuit_takes_as_many_features_as_the_encoder_on_average() -> None:
    sae, h = made(), activations()
    assert sae.thresholds is not None
    sae.thresholds += 2.0
    with pytest.raises(UserError, match="k: found an encoder whose thresholds decide"):
        INFERENCES["omp"](sae, h)
    mean = float((sae.encode(h).value != 0).sum(dim=1).double().mean())
    assert budgeted(sae, h).k == max(1, round(mean)) and sae.k == N
    code = expander_sae.infer(sae, h, "omp")
    assert code.index.shape == (len(h), max(1, round(mean)))
    assert expander_sae.evaluate(sae, h, "omp")["l0"] <= round(mean)
    assert expander_sae.evaluate(sae, h)["l0"] == pytest.approx(mean)
    sae.thresholds = None
    assert budgeted(sae, h) is sae


def test_codes_of_different_widths_are_joined() -> None:
    parts = [SparseCode(torch.tensor([[2]]), torch.tensor([[1.5]])), made().encode(activations()[-2:])]
    whole = joined(parts)
    assert torch.equal(dense(whole), torch.cat([dense(part) for part in parts]))
    assert joined(parts[:1]).index.tolist() == [[2]]
