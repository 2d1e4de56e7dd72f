"""One step: gradients, firing counts, resampling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.supports import support_of
from expander_sae.model import columns
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import RECIPES, Recipe
from expander_sae.training.step import TrainingState, resample, train_step
from tests.tensor_sizes import LargestTensor
from tests.training.small_data import few_directions as pool

M, N, K = 24, 192, 4


def start(family: str, d: int, recipe: Recipe, dtype: torch.dtype) -> TrainingState:
    mask = MaskRecipe(family, M, N, d, 0).generate()
    autoencoder = SparseAutoencoder(M, N, K, mask, "tied", "torch", dtype)
    autoencoder.initialise(torch_generator(0, "initialisation"))
    return TrainingState.start(autoencoder, recipe, seed=0)


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


@pytest.mark.parametrize("encoder", ["tied", "independent"])
def test_no_tensor_of_a_step_or_resampling_is_of_features_times_samples_or_rows(encoder: str) -> None:
    n, m, batch = 200_000, 96, 200
    recipe = replace(RECIPES["standard"], batch_size=batch)
    autoencoder = SparseAutoencoder(m, n, K, MaskRecipe("expander", m, n, 3, 0), encoder, "torch")
    autoencoder.initialise(torch_generator(0, "initialisation"))
    state = TrainingState.start(autoencoder, recipe, seed=0)
    data = torch.randn(batch, m, generator=torch_generator(1, "data"))
    with LargestTensor() as largest:
        train_step(state, data, recipe)
        silent = resample(state, data, replace(recipe, resample_max_dead=1.0))
    assert silent > 0.9 * n
    assert largest.elements <= min(n * batch, silent * m) / 2


def test_directions_in_pieces_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, data = replace(RECIPES["standard"], resample_max_dead=1.0), pool()[:32]
    values = []
    for entries in (1 << 22, 13):
        monkeypatch.setattr(columns, "AIMED_ENTRIES", entries)
        state = start("bernoulli", 5, recipe, torch.float64)
        assert resample(state, data, recipe) > 0
        values.append(state.autoencoder.values.detach().clone())
    assert torch.equal(*values)


def test_resampling_is_skipped_when_too_much_is_dead() -> None:
    recipe = RECIPES["paper"]
    state = start("expander", 5, recipe, torch.float64)
    before = state.autoencoder.values.detach().clone()
    assert resample(state, pool()[:32], recipe) == 0
    assert torch.equal(state.autoencoder.values.detach(), before)


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
    train_step(state, batch, recipe)
    assert torch.equal(state.fired, torch.bincount(code.index[code.value.abs() > 1e-6], minlength=N))


def test_a_parameter_that_needs_no_gradient_stays_as_it_is() -> None:
    recipe = RECIPES["standard"]
    state = start("expander", 3, recipe, torch.float32)
    state.autoencoder.b_dec.requires_grad_(False)
    before = state.autoencoder.b_dec.clone()
    train_step(state, pool(torch.float32)[:100] + 1, recipe)
    assert torch.equal(state.autoencoder.b_dec, before)
    assert state.autoencoder.b_dec.grad is None


ONE_ENTRY = [("expander", 1, "tied"), ("expander", 1, "warm_tied"), ("bernoulli", 3, "tied")]
ONE_ENTRY += [("bernoulli", 3, "warm_tied"), ("hybrid80", 6, "tied"), ("spectral8", 1, "tied")]


@pytest.mark.parametrize(("family", "d", "encoder"), ONE_ENTRY)
def test_columns_of_one_entry_do_not_move(family: str, d: int, encoder: str) -> None:
    """Their gradient is 0. Of a rounding error in its place Adam makes whole steps: signs flip."""
    recipe = replace(RECIPES["tuned"], learning_rate=0.05)
    asked = MaskRecipe(family, M, N, d, 0)
    support = asked if support_of(family).make is None else asked.generate()
    autoencoder = SparseAutoencoder(M, N, K, support, encoder, "torch")
    autoencoder.initialise(torch_generator(0, "initialisation"))
    state = TrainingState.start(autoencoder, recipe, seed=0)
    entries = autoencoder.values.shape[1]
    single = torch.tensor([True] * len(autoencoder.values))
    if isinstance(support, Mask):
        single, entries = torch.from_numpy(support.degrees == 1), support.width
    assert (entries == 1) == bool(single.all())
    before = autoencoder.values.detach().clone()
    data = pool().float()
    for start_at in range(0, 20 * 32, 32):
        train_step(state, data[start_at : start_at + 32], recipe)
    assert int(single.sum()) > 10
    assert torch.equal(autoencoder.values[single], before[single])
    assert torch.equal(autoencoder.values, before) == bool(single.all())
    if isinstance(support, Mask):
        columns = autoencoder.dictionary().columns(single.nonzero().flatten())
        assert torch.equal(columns.abs().sum(dim=1), torch.ones(int(single.sum())))
