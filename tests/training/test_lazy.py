"""Clip and Adam on touched columns alone: against loops over features, where it is Adam, and resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import RECIPES, Recipe, resolve
from expander_sae.training.step import TrainingState, train_step
from expander_sae.training.trainer import Trainer
from tests.training.small_data import few_directions as pool

M, N, D, K, BATCH, RATE, CLIP = 24, 96, 5, 2, 8, 0.03, 0.5
LAZY = replace(RECIPES["standard"], lazy=True, learning_rate=RATE, clip_norm=CLIP)


def start(
    backend: str, recipe: Recipe = LAZY, k: int = K, encoder: str = "tied", dtype: torch.dtype = torch.float64
) -> TrainingState:
    mask = MaskRecipe("expander", M, N, D, 0).generate()
    autoencoder = SparseAutoencoder(M, N, k, mask, encoder, backend, dtype)
    autoencoder.initialise(torch_generator(0, "initialisation"))
    return TrainingState.start(autoencoder, recipe, seed=0)


def batch(step: int) -> Tensor:
    return pool()[step * BATCH : (step + 1) * BATCH].double()


class Loops:
    """The update as `training.lazy` states it, a feature at a time, with gradients by autograd."""

    def __init__(self, autoencoder: SparseAutoencoder) -> None:
        self.autoencoder = autoencoder
        self.moments = {
            name: (np.zeros(each.shape), np.zeros(each.shape))
            for name, each in autoencoder.named_parameters()
        }
        self.visits = np.zeros(N, int)
        self.steps = 0

    def step(self, samples: Tensor) -> None:
        autoencoder = self.autoencoder
        autoencoder.zero_grad()
        rebuilt, code = autoencoder(samples)
        (rebuilt - samples).square().sum(dim=1).mean().backward()
        self.steps += 1
        touched = sorted(set(code.index.flatten().tolist()))
        self.visits[touched] += 1
        named = dict(autoencoder.named_parameters())
        norm = sum(float(each.grad.square().sum()) for each in named.values()) ** 0.5
        share = min(1.0, CLIP / (norm + 1e-6))
        for name, each in named.items():
            gradient = each.grad.numpy() * share
            for row in touched if name != "b_dec" else range(M):
                t = self.visits[row] if name != "b_dec" else self.steps
                mean, square = (moment for moment in self.moments[name])
                mean[row] = 0.9 * mean[row] + 0.1 * gradient[row]
                square[row] = 0.999 * square[row] + 0.001 * gradient[row] ** 2
                root = np.sqrt(square[row] / (1 - 0.999**t)) + 1e-8
                each.data[row] -= torch.as_tensor(RATE * mean[row] / (1 - 0.9**t) / root)


@pytest.mark.parametrize("encoder", ["tied", "independent"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_training_is_that_of_loops_over_features(backend: str, encoder: str) -> None:
    found, expected = start(backend, encoder=encoder), Loops(start("torch", encoder=encoder).autoencoder)
    for step in range(12):
        train_step(found, batch(step), LAZY)
        expected.step(batch(step))
    assert 0 < (expected.visits == 0).sum() < N and expected.visits.max() > 3
    for one, other in zip(found.autoencoder.parameters(), expected.autoencoder.parameters(), strict=True):
        assert (one - other).abs().max() < 1e-10


def test_what_no_code_has_keeps_every_bit() -> None:
    state = start("torch")
    for step in range(6):
        before = [each.clone() for each in state.changing()]
        with torch.no_grad():
            touched = state.autoencoder.encode(batch(step)).index.flatten().unique()
        train_step(state, batch(step), LAZY)
        others = torch.ones(N, dtype=torch.bool)
        others[touched] = False
        for now, then in zip(state.changing(), before, strict=True):
            if len(now.shape) and len(now) == N:
                assert torch.equal(now[others], then[others])
        moved = (state.autoencoder.values.detach() - before[0]).abs()
        assert (moved[touched] > 0).all(dim=1).any()


def test_where_every_column_takes_part_it_is_the_published_update() -> None:
    states = [start("torch", recipe, k=N) for recipe in (LAZY, replace(LAZY, lazy=False))]
    for step in range(10):
        for state, recipe in zip(states, (LAZY, replace(LAZY, lazy=False)), strict=True):
            train_step(state, batch(step), recipe)
    for one, other in zip(*(state.autoencoder.parameters() for state in states), strict=True):
        assert (one - other).abs().max() < 1e-12


def test_both_backends_end_alike_in_float32() -> None:
    states = [start(backend, dtype=torch.float32) for backend in ("torch", "numba")]
    for step in range(12):
        for state in states:
            train_step(state, batch(step).float(), LAZY)
    one, other = (state.autoencoder.values.detach() for state in states)
    assert (one - other).norm() < 1e-5 * one.norm()


def test_a_training_that_was_stopped_goes_on_to_equal_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "n": N,
        "d": D,
        "k": K,
        "batch_size": BATCH,
        "device": "cpu",
        "recipe": "tuned",
    }
    settings["lazy"] = True
    whole = Trainer(pool().float(), **settings).fit(40)
    file = tmp_path / "checkpoint"

    class Stopped(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 25:
            raise Stopped

    kept: dict[str, Any] = {"checkpoint": file, "checkpoint_every": 20}
    with pytest.raises(Stopped):
        Trainer(pool().float(), **settings, **kept, log_every=5, on_log=stop).fit(40)
    gone_on = Trainer(pool().float(), **settings, **kept).fit(40)
    assert torch.equal(gone_on.values, whole.values) and torch.equal(gone_on.b_enc, whole.b_enc)
    published = Trainer(pool().float(), **settings | {"lazy": False}).fit(40)
    assert not torch.equal(published.values, whole.values)


def test_it_is_a_recipe_of_its_own() -> None:
    label, recipe = resolve("tuned", {"lazy": True})
    assert label.startswith("tuned-") and recipe.settings["lazy"] is True
    assert "lazy" not in RECIPES["tuned"].settings and not resolve("tuned", {"lazy": False})[1].lazy
