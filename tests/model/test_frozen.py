"""Columns that training may not move, or not far: over a whole training with re-aiming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expander_sae import SparseAutoencoder, Trainer, UserError, load
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.frozen import LEAST_COSINE
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import RECIPES
from expander_sae.training.step import TrainingState, resample, train_step
from tests.training.small_data import few_directions

M, N, D, K = 24, 192, 3, 4
RECIPE = RECIPES["standard"].__class__(learning_rate=0.05, resample_every=10, resample_max_dead=1.0)


def start(support: str, encoder: str, backend: str = "torch") -> TrainingState:
    sae = SparseAutoencoder(M, N, K, MaskRecipe(support, M, N, D, 0).generate(), encoder, backend)
    sae.initialise(torch_generator(0, "initialisation"))
    return TrainingState.start(sae, RECIPE, seed=0)


def train(state: TrainingState, steps: int = 40) -> int:
    """Steps with a re-aiming after every tenth; returns how many features were turned."""
    data, turned = few_directions(torch.float32), 0
    for step in range(steps):
        batch = data[torch.randint(len(data), (64,), generator=state.batches)]
        train_step(state, batch, RECIPE)
        if step % 10 == 9:
            turned += resample(state, batch, RECIPE)
    return turned


@pytest.mark.parametrize("encoder", ["warm_tied", "independent", "own_support", "full"])
def test_a_frozen_decoder_does_not_move_and_its_encoder_does(encoder: str) -> None:
    state = start("frozen_decoder", encoder)
    sae = state.autoencoder
    assert sae.encoder is not None
    before, own = sae.values.clone(), sae.encoder.detach().clone()
    assert train(state) == 0, "a feature whose column stays is not re-aimed"
    assert torch.equal(sae.values, before)
    assert not torch.equal(sae.encoder, own) and sae.b_dec.any()


@pytest.mark.parametrize("encoder", ["warm_tied", "independent", "own_support", "full"])
def test_a_frozen_encoder_does_not_move_and_its_decoder_does(encoder: str) -> None:
    state = start("frozen_encoder", encoder)
    sae = state.autoencoder
    assert sae.encoder is not None
    before, own = sae.values.detach().clone(), sae.encoder.clone()
    assert train(state) > 0
    assert torch.equal(sae.encoder, own)
    assert not torch.equal(sae.values.detach(), before)


@pytest.mark.parametrize(("encoder", "backend"), [("tied", "torch"), ("tied", "auto"), ("full", "torch")])
def test_a_softly_frozen_column_stays_near_its_start(encoder: str, backend: str) -> None:
    state = start("soft_frozen", encoder, backend)
    data = few_directions(torch.float32)
    begun = state.autoencoder.dictionary().columns(torch.arange(N)).double()
    turned, least = 0, 1.0
    for step in range(40):
        batch = data[torch.randint(len(data), (64,), generator=state.batches)]
        train_step(state, batch, RECIPE)
        least = min(least, cosine(state.autoencoder, begun))
        if step % 10 == 9:
            turned += resample(state, batch, RECIPE)
            least = min(least, cosine(state.autoencoder, begun))
    assert turned > 0
    assert LEAST_COSINE <= least < LEAST_COSINE + 0.001, "it is reached, and never passed"


def cosine(sae: SparseAutoencoder, begun: torch.Tensor) -> float:
    """The least of a column and its start, in float64."""
    now = torch.nn.functional.normalize(sae.dictionary().columns(torch.arange(N)).double(), dim=1)
    return float((now * torch.nn.functional.normalize(begun, dim=1)).sum(dim=1).min())


def test_a_column_that_is_turned_back_keeps_its_plane_and_its_norm() -> None:
    sae = start("soft_frozen", "tied").autoencoder
    begun = torch.nn.functional.normalize(sae.values.detach().double(), dim=1)
    other = torch.randn(N, D, generator=torch_generator(1, "other"))
    with torch.no_grad():
        sae.values.copy_(other)
    sae.decoder.constrain()
    wide, now = other.double(), sae.values.detach().double()
    torch.testing.assert_close(now.norm(dim=1), wide.norm(dim=1), atol=0, rtol=2e-6)
    far = (torch.nn.functional.normalize(wide, dim=1) * begun).sum(dim=1) < LEAST_COSINE
    assert far.any() and not far.all()
    assert torch.equal(sae.values[~far], other[~far])
    aside = torch.nn.functional.normalize(wide - (wide * begun).sum(dim=1, keepdim=True) * begun, dim=1)
    expected = 0.8 * begun + 0.6 * aside
    torch.testing.assert_close((now / now.norm(dim=1, keepdim=True))[far], expected[far], atol=1e-4, rtol=0)


@pytest.mark.parametrize("support", ["frozen_decoder", "frozen_encoder", "soft_frozen"])
def test_a_killed_training_ends_as_an_undisturbed_one(support: str, tmp_path: Path) -> None:
    data = few_directions(torch.float32)
    settings = {"support": support, "encoder": "independent", "n": N, "d": D, "k": K, "device": "cpu"}
    settings |= {"learning_rate": 0.05, "resample_every": 10, "resample_max_dead": 1.0}
    whole = Trainer(data, **settings).fit(40)
    half = {"checkpoint": tmp_path / "c.safetensors", "checkpoint_every": 15}
    with pytest.raises(KeyboardInterrupt):
        Trainer(data, **settings, **half, log_every=20, on_log=interrupt).fit(40)
    again = Trainer(data, **settings, **half).fit(40)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    loaded = load(whole.save(tmp_path / "w.safetensors"))
    assert torch.equal(loaded.encode(data).value, whole.encode(data).value)


def interrupt(row: dict[str, float]) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("support", ["frozen_decoder", "frozen_encoder"])
def test_a_tied_encoder_makes_no_sense_of_them(support: str) -> None:
    with pytest.raises(UserError, match=f"encoder: found 'tied' for {support}, expected one of warm_tied, "):
        start(support, "tied")
