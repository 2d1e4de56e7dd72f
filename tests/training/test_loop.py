"""The loop against an independent dense one, its schedule, resampling and resume."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import RECIPES, Recipe
from expander_sae.training.loop import (
    Cadence,
    TrainingState,
    learning_rate,
    resample,
    train,
    train_step,
    train_together,
)
from tests import dense_reference

M, N, K, POOL = 24, 192, 4, 2000


def pool(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Activations with a few strong directions, so that features die and are re-aimed."""
    generator = torch_generator(1, "pool")
    factors = torch.randn(6, M, generator=generator, dtype=torch.float64)
    codes = torch.randn(POOL, 6, generator=generator, dtype=torch.float64).relu()
    noise = 0.1 * torch.randn(POOL, M, generator=generator, dtype=torch.float64)
    return (codes @ factors + noise).to(dtype)


def start(family: str, d: int, recipe: Recipe, dtype: torch.dtype, backend: str = "torch") -> TrainingState:
    mask = MaskRecipe(family, M, N, d, 0).generate()
    autoencoder = SparseAutoencoder(M, N, K, mask, "tied", backend, dtype)
    autoencoder.initialise(torch_generator(0, "initialisation"))
    return TrainingState.start(autoencoder, recipe, seed=0)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(
    ("family", "d"), [("expander", 3), ("expander", 20), ("bernoulli", 5), ("clustered", 7)]
)
def test_recipe_paper_equals_the_dense_reference(family: str, d: int, backend: str) -> None:
    """300 steps, two resamplings, the second on the last step: every parameter to 1e-8."""
    steps, every = 300, 150
    recipe = replace(RECIPES["paper"], resample_every=every, batch_size=32)
    state = start(family, d, recipe, torch.float64, backend)
    autoencoder, data = state.autoencoder, pool()
    assert autoencoder.mask is not None
    rows, degrees = autoencoder.mask.rows, autoencoder.mask.degrees
    mask = dense_reference.dense_mask(rows, degrees, M)
    v = dense_reference.to_dense(autoencoder.values.detach(), rows, degrees, M)
    order = torch_generator(0, "batches")
    batches = [data[torch.randint(POOL, (32,), generator=order)] for _ in range(steps)]

    silent_before: list[int] = []

    def draw(positions: torch.Tensor) -> torch.Tensor:
        if (state.step + 1) % every == 0:
            silent_before.append(int((state.fired < recipe.resample_min_fires).sum()))
        return data[positions]

    assert train(state, draw, POOL, steps, recipe)
    expected = dense_reference.train(mask, v, batches, K, d, every, torch_generator(0, "resampling"))
    assert len(silent_before) == 2
    assert all(0 < count <= 0.8 * N for count in silent_before), "both resamplings must do something"
    got = dense_reference.to_dense(autoencoder.values.detach(), rows, degrees, M)
    torch.testing.assert_close(got, mask * expected["v"], rtol=0, atol=1e-8)
    torch.testing.assert_close(autoencoder.b_enc.detach(), expected["b_enc"], rtol=0, atol=1e-8)
    torch.testing.assert_close(autoencoder.b_dec.detach(), expected["b_dec"], rtol=0, atol=1e-8)


def test_learning_rate_is_the_published_cosine() -> None:
    recipe = RECIPES["paper"]
    assert learning_rate(0, 5000, recipe) == pytest.approx(3e-4, rel=1e-12)
    assert learning_rate(2500, 5000, recipe) == pytest.approx((3e-4 + 1e-5) / 2, rel=1e-12)
    assert learning_rate(5000, 5000, recipe) == pytest.approx(1e-5, rel=1e-12)


@pytest.mark.parametrize("encoder", ["tied", "independent"])
def test_resuming_from_any_checkpoint_changes_nothing(encoder: str) -> None:
    recipe = replace(RECIPES["standard"], resample_every=20, batch_size=16)
    data = pool(torch.float32)

    def fresh() -> TrainingState:
        mask = MaskRecipe("expander", M, N, 5, 0).generate()
        autoencoder = SparseAutoencoder(M, N, K, mask, encoder)
        autoencoder.initialise(torch_generator(0, "initialisation"))
        return TrainingState.start(autoencoder, recipe, seed=0)

    checkpoints: list[dict[str, torch.Tensor]] = []
    whole = fresh()
    train(
        whole,
        lambda p: data[p],
        POOL,
        60,
        recipe,
        Cadence(log_every=10, checkpoint_every=7),
        checkpoint=lambda s: checkpoints.append({name: t.clone() for name, t in s.tensors().items()}),
    )
    assert len(checkpoints) == 8
    for stored in (checkpoints[0], checkpoints[3], checkpoints[-1]):
        resumed = fresh()
        resumed.restore(stored)
        train(resumed, lambda p: data[p], POOL, 60, recipe, Cadence(log_every=10))
        for name, tensor in whole.tensors().items():
            assert torch.equal(tensor, resumed.tensors()[name]), name


def test_training_together_is_training_one_by_one() -> None:
    recipe = replace(RECIPES["standard"], resample_every=20, batch_size=16)
    data = pool(torch.float32)
    settings = [(3, 4, 0), (3, 8, 0), (9, 4, 0), (3, 4, 1)]
    reads: list[int] = []

    def fresh(d: int, k: int, seed: int) -> TrainingState:
        mask = MaskRecipe("expander", M, N, d, seed).generate()
        autoencoder = SparseAutoencoder(M, N, k, mask)
        autoencoder.initialise(torch_generator(seed, "initialisation"))
        return TrainingState.start(autoencoder, recipe, seed)

    def draw(positions: torch.Tensor) -> torch.Tensor:
        reads.append(1)
        return data[positions]

    together = [fresh(*setting) for setting in settings]
    assert all(train_together(together, draw, POOL, 45, recipe))
    assert len(reads) == 2 * 45, "three of one seed share a batch"
    for setting, state in zip(settings, together, strict=True):
        alone = fresh(*setting)
        train(alone, draw, POOL, 45, recipe)
        for name, tensor in alone.tensors().items():
            assert torch.equal(tensor, state.tensors()[name]), (setting, name)


def test_resampling_aims_at_residuals_on_the_support() -> None:
    recipe = replace(RECIPES["standard"], resample_max_dead=1.0)
    state = start("expander", 5, recipe, torch.float64)
    data = pool()[:32]
    autoencoder = state.autoencoder
    before = autoencoder.values.detach().clone()
    residual = data - autoencoder.decode(autoencoder.encode(data))
    state.fired[:] = 5
    state.fired[[2, 9]] = 4
    with torch.no_grad():
        autoencoder.b_enc.fill_(0.3)
    residual = data - autoencoder.decode(autoencoder.encode(data))
    assert resample(state, data, recipe) == 2
    rows = autoencoder.decoder.rows
    for feature in range(N):
        now = autoencoder.values.detach()[feature]
        if feature in (2, 9):
            candidates = residual[:, rows[feature].long()] / math.sqrt(5)
            assert (candidates - now).norm(dim=1).min() < 1e-12
            assert autoencoder.b_enc[feature] == 0
        else:
            assert torch.equal(now, before[feature])
    assert not state.fired.any()


def test_resampling_is_skipped_when_too_much_is_dead() -> None:
    recipe = RECIPES["paper"]
    state = start("expander", 5, recipe, torch.float64)
    before = state.autoencoder.values.detach().clone()
    assert resample(state, pool()[:32], recipe) == 0
    assert torch.equal(state.autoencoder.values.detach(), before)


def test_a_run_that_stops_being_finite_says_so() -> None:
    recipe = RECIPES["standard"]
    state = start("expander", 5, recipe, torch.float32)
    data = pool(torch.float32)
    data[7] = float("nan")
    assert not train(state, lambda p: data[torch.full_like(p, 7)], POOL, 100, recipe, Cadence(log_every=10))
    assert state.step == 10


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(
    ("family", "d", "encoder"),
    [("expander", 3, "tied"), ("bernoulli", 5, "tied"), (None, M, "tied"), ("expander", 3, "own_support")],
)
def test_gradients_of_a_step_are_those_of_autograd_to_the_last_bit(
    backend: str, family: str | None, d: int, encoder: str
) -> None:
    mask = MaskRecipe(family, M, N, d, 0).generate() if family else None
    autoencoder = SparseAutoencoder(M, N, K, mask, encoder, backend)
    autoencoder.initialise(torch_generator(0, "initialisation"))
    batch = pool(torch.float32)[:100]
    rebuilt, code = autoencoder(batch)
    (rebuilt - batch).square().sum(dim=1).mean().backward()
    expected = {name: p.grad for name, p in autoencoder.named_parameters()}

    found, found_code = autoencoder.set_gradients(batch)
    assert torch.equal(found, rebuilt) and torch.equal(found_code.index, code.index)
    assert not found.requires_grad and not found_code.value.requires_grad
    for name, parameter in autoencoder.named_parameters():
        assert expected[name] is not None and parameter.grad is not None
        assert torch.equal(parameter.grad, expected[name]), name


def test_a_step_counts_what_fired() -> None:
    recipe = RECIPES["standard"]
    state = start("expander", 3, recipe, torch.float32)
    batch = pool(torch.float32)[:100]
    code = state.autoencoder.encode(batch)
    train_step(state, batch, 10, recipe)
    assert torch.equal(state.fired, torch.bincount(code.index[code.value.abs() > 1e-6], minlength=N))


def test_a_parameter_that_needs_no_gradient_stays_as_it_is() -> None:
    recipe = RECIPES["standard"]
    state = start("expander", 3, recipe, torch.float32)
    state.autoencoder.b_dec.requires_grad_(False)
    before = state.autoencoder.b_dec.clone()
    train_step(state, pool(torch.float32)[:100] + 1, 10, recipe)
    assert torch.equal(state.autoencoder.b_dec, before)
    assert state.autoencoder.b_dec.grad is None
