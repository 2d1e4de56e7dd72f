"""The loop against an independent dense one, its schedule, exact resume, and many trainings at once."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import RECIPES, Recipe
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.normalisation import KeptTokens, Normalisation
from expander_sae.training.session import Cadence, Session, Training, learning_rate
from expander_sae.training.step import TrainingState, train_step
from tests import dense_reference
from tests.training.small_data import few_directions

M, N, K = 24, 192, 4
PUBLISHED = replace(RECIPES["paper"], resample_every=150, batch_size=32)
SMALL, TUNED = (replace(RECIPES[name], resample_every=20, batch_size=16) for name in ("standard", "tuned"))


@dataclass(frozen=True, eq=False)
class Watched(KeptTokens):
    """Tokens that tell when a batch of them is read."""

    watch: Callable[[], None] = lambda: None

    def batch(self, positions: torch.Tensor) -> torch.Tensor:
        self.watch()
        return super().batch(positions)


def tokens(data: torch.Tensor, watch: Callable[[], None] = lambda: None) -> KeptTokens:
    """Every row of `data` as it is."""
    as_it_is = Normalisation(math.inf, 1.0, np.zeros(data.shape[1], np.float32), np.arange(len(data)))
    return Watched(data, as_it_is, dtype=data.dtype, watch=watch)


def untrained(
    d: int,
    k: int = K,
    seed: int = 0,
    family: str = "expander",
    encoder: str = "tied",
    backend: str = "auto",
    dtype: torch.dtype = torch.float32,
) -> SparseAutoencoder:
    mask = MaskRecipe(family, M, N, d, seed).generate()
    return SparseAutoencoder(M, N, k, mask, encoder, backend, dtype)


def assert_same(found: TrainingState, expected: TrainingState) -> None:
    """Equal to the bit: parameters, moments, streams, counts and log."""
    there = found.tensors()
    for name, tensor in expected.tensors().items():
        assert torch.equal(tensor, there[name]), name


def assert_equals_the_dense_reference(
    recipe: Recipe, family: str, d: int, backend: str = "auto", **reference: Any
) -> None:
    """300 steps, two resamplings, the second on the last step: every parameter to 1e-8."""
    steps, every = 300, recipe.resample_every
    autoencoder = untrained(d, family=family, backend=backend, dtype=torch.float64)
    silent_before: list[int] = []

    def watch() -> None:
        if (state.step + 1) % every == 0:
            silent_before.append(int((state.fired < recipe.resample_min_fires).sum()))

    data = few_directions()
    session = Session(tokens(data, watch), recipe, steps)
    training = session.start(autoencoder, seed=0)
    state = training.state
    assert autoencoder.mask is not None
    rows, degrees = autoencoder.mask.rows, autoencoder.mask.degrees
    mask = dense_reference.dense_mask(rows, degrees, M)
    v = dense_reference.to_dense(autoencoder.values.detach(), rows, degrees, M)
    order = torch_generator(0, "batches")
    batches = [data[torch.randint(len(data), (32,), generator=order)] for _ in range(steps)]

    assert session.train([training]) == 1 and state.finite
    generator = torch_generator(0, "resampling")
    expected = dense_reference.train(mask, v, batches, K, d, every, generator, **reference)
    assert len(silent_before) == 2
    assert all(0 < count <= 0.8 * N for count in silent_before), "both resamplings must do something"
    got = dense_reference.to_dense(autoencoder.values.detach(), rows, degrees, M)
    torch.testing.assert_close(got, mask * expected["v"], rtol=0, atol=1e-8)
    torch.testing.assert_close(autoencoder.b_enc.detach(), expected["b_enc"], rtol=0, atol=1e-8)
    torch.testing.assert_close(autoencoder.b_dec.detach(), expected["b_dec"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(
    ("family", "d"), [("expander", 3), ("expander", 20), ("bernoulli", 5), ("clustered", 7)]
)
def test_recipe_paper_equals_the_dense_reference(family: str, d: int, backend: str) -> None:
    assert_equals_the_dense_reference(PUBLISHED, family, d, backend)


@pytest.mark.parametrize(("family", "d"), [("expander", 3), ("expander", 20), ("bernoulli", 5)])
def test_each_mechanism_equals_the_dense_reference(family: str, d: int) -> None:
    of_columns, of_biases = replace(PUBLISHED, rate_per_column=True), replace(PUBLISHED, bias_rate=1e-4)
    assert_equals_the_dense_reference(of_columns, family, d, shares=(d**-0.5, 1.0))
    assert_equals_the_dense_reference(of_biases, family, d, shares=(1.0, d**0.5 / 3))
    until = replace(PUBLISHED, resample_until=0.5)
    assert_equals_the_dense_reference(until, family, d, last_resampling=150)
    both = replace(of_columns, bias_rate=1e-5)
    assert_equals_the_dense_reference(both, family, d, shares=(d**-0.5, d**0.5 / 30))


def test_learning_rate_is_the_published_cosine() -> None:
    recipe = RECIPES["paper"]
    assert learning_rate(0, 5000, recipe) == pytest.approx(3e-4, rel=1e-12)
    assert learning_rate(2500, 5000, recipe) == pytest.approx((3e-4 + 1e-5) / 2, rel=1e-12)
    assert learning_rate(5000, 5000, recipe) == pytest.approx(1e-5, rel=1e-12)


def test_each_parameter_moves_by_its_share_of_the_rate() -> None:
    """A first step of Adam is the rate itself, up to its ε: 1/√d of it for values, √d times it for biases."""
    recipe = replace(TUNED, clip_norm=1e9, learning_rate=0.2, bias_rate=0.01)
    for encoder, d in (("tied", 5), ("full", M)):
        state = (
            Session(tokens(few_directions()), recipe, 9)
            .start(untrained(5, encoder=encoder, dtype=torch.float64), 0)
            .state
        )
        before = {name: p.detach().clone() for name, p in state.autoencoder.named_parameters()}
        state.set_rate(recipe.learning_rate)
        train_step(state, few_directions()[:64], recipe)
        moved = {name: (p - before[name]).abs().max() for name, p in state.autoencoder.named_parameters()}
        assert moved["values"].item() == pytest.approx(0.2 / math.sqrt(5), rel=1e-4)
        assert moved["b_enc"].item() == pytest.approx(math.sqrt(5) * 0.01, rel=1e-4)
        assert moved["b_dec"].item() == pytest.approx(math.sqrt(5) * 0.01, rel=1e-4)
        if encoder == "full":
            assert moved["encoder"].item() == pytest.approx(0.2 / math.sqrt(d), rel=1e-4)


@pytest.mark.parametrize("encoder", ["tied", "independent", "full"])
@pytest.mark.parametrize("recipe", [SMALL, TUNED])
def test_resuming_from_any_checkpoint_changes_nothing(recipe: Recipe, encoder: str, tmp_path: Path) -> None:
    stored: list[bytes] = []

    class Kept(Checkpoint):
        def save(self, state: TrainingState) -> None:
            super().save(state)
            stored.append(self.path.read_bytes())

    session = Session(
        tokens(few_directions(torch.float32)), recipe, 60, Cadence(log_every=10, checkpoint_every=7)
    )

    def start() -> Training:
        return session.start(untrained(5, encoder=encoder), 0, Kept(tmp_path / "checkpoint", "this"))

    whole = start()
    session.train([whole])
    assert len(stored) == 8
    for content in (stored[0], stored[3], stored[-1]):
        (tmp_path / "checkpoint").write_bytes(content)
        resumed = start()
        assert 0 < resumed.state.step < 60
        session.train([resumed])
        assert_same(resumed.state, whole.state)


def test_the_last_step_is_kept_where_that_is_asked(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", "this")
    session = Session(tokens(few_directions(torch.float32)), SMALL, 9, Cadence(checkpoint_last=True))
    session.train([session.start(untrained(5), 0, checkpoint)])
    assert session.start(untrained(5), 0, checkpoint).state.step == 9


def test_another_trainings_checkpoint_is_refused_unless_it_is_temporary(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    session = Session(tokens(few_directions(torch.float32)), SMALL, 9, Cadence(checkpoint_last=True))
    session.train([session.start(untrained(5), 0, Checkpoint(file, "this"))])
    damaged = file.read_bytes()[:-1]
    for content, message in ((file.read_bytes(), "a checkpoint of other settings"), (damaged, "altered")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"checkpoint: {message}"):
            session.start(untrained(5), 0, Checkpoint(file, "another"))
        assert session.start(untrained(5), 0, Checkpoint(file, "another", temporary=True)).state.step == 0


SETTINGS = [(3, 4, 0), (3, 8, 0), (9, 4, 0), (3, 4, 1)]


@pytest.mark.parametrize("side_by_side", [4, 3, 1])
def test_training_side_by_side_is_training_alone(side_by_side: int) -> None:
    reads: list[None] = []
    session = Session(
        tokens(few_directions(torch.float32), lambda: reads.append(None)),
        SMALL,
        45,
        side_by_side=side_by_side,
    )

    def start(setting: tuple[int, int, int]) -> Training:
        return session.start(untrained(*setting), setting[2])

    together = [start(setting) for setting in SETTINGS]
    assert session.train(together) == 4
    assert len(reads) == {4: 2, 3: 2, 1: 4}[side_by_side] * 45, "those of one seed share each batch"
    for setting, training in zip(SETTINGS, together, strict=True):
        alone = start(setting)
        session.train([alone])
        assert_same(training.state, alone.state)


def test_what_cannot_be_recorded_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it they would all be called, launch by launch."""
    groups: list[list[str]] = []

    def recorder(autoencoders: list[SparseAutoencoder]) -> Callable[..., Any] | None:
        groups.append([each.decoder.recipe.family for each in autoencoders])
        return None if "bernoulli" in groups[-1] else lambda body, changed: body

    monkeypatch.setattr("expander_sae.training.session.recorder_for", recorder)
    families = ["expander", "bernoulli", "bernoulli", "expander", "clustered", "expander"]
    data = few_directions(torch.float32)
    session = Session(tokens(data), SMALL, 5, side_by_side=4)
    given = [session.start(untrained(3, seed=seed, family=name), seed) for seed, name in enumerate(families)]
    assert session.train(iter(given)) == len(families)
    together = [group for group in groups if len(group) > 1]
    assert together == [["bernoulli", "bernoulli"], ["expander", "clustered", "expander"]]
    monkeypatch.undo()
    for seed, (name, training) in enumerate(zip(families, given, strict=True)):
        alone = Session(tokens(data), SMALL, 5)
        one = alone.start(untrained(3, seed=seed, family=name), seed)
        alone.train([one])
        assert_same(training.state, one.state)


@pytest.mark.parametrize("side_by_side", [1, 2])
def test_only_those_that_are_side_by_side_are_in_memory(side_by_side: int) -> None:
    alive: list[weakref.ref[SparseAutoencoder]] = []
    most: list[int] = []
    session = Session(tokens(few_directions(torch.float32)), SMALL, 3, side_by_side=side_by_side)

    def start(setting: tuple[int, int, int]) -> Training:
        autoencoder = untrained(*setting)
        alive.append(weakref.ref(autoencoder))
        most.append(sum(reference() is not None for reference in alive))
        return session.start(autoencoder, setting[2])

    assert session.train(map(start, SETTINGS)) == 4
    assert max(most) == side_by_side


def test_each_is_told_when_it_is_over_in_the_units_of_the_activations() -> None:
    scaled = tokens(few_directions(torch.float32))
    session = Session(replace(scaled, normalisation=replace(scaled.normalisation, scale=0.5)), SMALL, 5)
    in_training: dict[int, torch.Tensor] = {}
    told: dict[int, torch.Tensor] = {}

    def start(seed: int) -> Training:
        training: Training = session.start(
            untrained(3, seed=seed),
            seed,
            report=lambda row: in_training.update({seed: training.state.autoencoder.b_dec.detach().clone()}),
            done=lambda state: told.update({seed: state.autoencoder.b_dec.detach().clone()}),
        )
        return training

    assert session.train(start(seed) for seed in (0, 1)) == 2
    assert list(told) == [0, 1] and all(torch.equal(told[seed], in_training[seed] * 2) for seed in told)


def test_a_loss_that_is_not_finite_ends_that_training_alone(tmp_path: Path) -> None:
    cadence = Cadence(log_every=10, checkpoint_every=10)
    session = Session(tokens(few_directions(torch.float32)), SMALL, 60, cadence, side_by_side=2)
    kept = Checkpoint(tmp_path / "checkpoint", "broken")
    broken, whole = session.start(untrained(5), 0, kept), session.start(untrained(5, seed=1), 1)
    with torch.no_grad():
        broken.state.autoencoder.b_dec.fill_(math.nan)
    assert session.train([broken, whole]) == 2
    assert not broken.state.finite and broken.state.step == 10
    assert whole.state.finite and whole.state.step == 60
    resumed = session.start(untrained(5), 0, kept)
    assert session.train([resumed]) == 1 and resumed.state.step == 10, "it ends where it ended"
