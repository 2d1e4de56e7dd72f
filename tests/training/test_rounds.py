"""A round on tensors that stay: what a graph repeats ends, to the last bit, like calls of the plain step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.kernels import dense, dense_products, exact_topk
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.study.recipes import RECIPES
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.normalisation import KeptTokens, Normalisation
from expander_sae.training.recording import Recorder, recorder_for
from expander_sae.training.room import bytes_of_state, bytes_of_step, one_more
from expander_sae.training.rounds import Round
from expander_sae.training.session import Cadence, Session, Training, learning_rate
from expander_sae.training.step import TrainingState, resample, train_step
from tests.training.recorded_calls import Recording, recorded, without_questions
from tests.training.small_data import few_directions

M, N, K, STEPS = 24, 96, 4, 45
RECIPE = replace(RECIPES["tuned"], resample_every=10, batch_size=16)
PAPER = replace(RECIPES["paper"], resample_every=10, batch_size=16)
KINDS = [
    ("expander", "tied", "float32"),
    ("bernoulli", "tied", "float32"),
    ("expander", "independent", "float32"),
    ("expander", "full", "float32"),
    ("soft_frozen", "warm_tied", "float32"),
    ("frozen_decoder", "warm_tied", "float32"),
    ("expander", "tied", "int4"),
    ("dense", "tied", "float32"),
    ("dense", "warm_tied", "float32"),
]


@pytest.fixture(autouse=True)
def _no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    without_questions(monkeypatch)


@dataclass(frozen=True, eq=False)
class Far(KeptTokens):
    """Tokens that no step may gather."""

    @property
    def is_near(self) -> bool:
        return False


def tokens(kind: type[KeptTokens] = KeptTokens) -> KeptTokens:
    """Every second row, scaled."""
    data = few_directions()
    halves = Normalisation(math.inf, 0.5, np.zeros(M, np.float32), np.arange(0, len(data), 2))
    return kind(data, halves, dtype=torch.float64)


def untrained(
    family: str = "expander", encoder: str = "tied", precision: str = "float32", seed: int = 0
) -> SparseAutoencoder:
    support: Mask | MaskRecipe | None = None
    if family != "dense":
        support = MaskRecipe(family, M, N, 5, seed).generate()
    made = SparseAutoencoder(M, N, K, support, encoder, "torch", torch.float64)
    made.train_in(precision)
    return made


def session(record: Recorder | None, **settings: Any) -> Session:
    return Session(**({"tokens": tokens(), "recipe": RECIPE, "steps": STEPS, "record": record} | settings))


def assert_same(found: TrainingState, expected: TrainingState) -> None:
    there = found.tensors()
    for name, tensor in expected.tensors().items():
        assert torch.equal(tensor, there[name]), name


@pytest.mark.parametrize("recipe", [RECIPE, PAPER], ids=["tuned", "paper"])
@pytest.mark.parametrize(("family", "encoder", "precision"), KINDS)
def test_what_is_repeated_is_the_plain_loop(recipe: Any, family: str, encoder: str, precision: str) -> None:
    """Against a loop written out here: other rates, batches and counts each step, and four resamplings."""
    given = session(recorded, recipe=recipe)
    training = given.start(untrained(family, encoder, precision), 3)
    plain = given.start(untrained(family, encoder, precision), 3).state
    data, aimed = tokens(), 0
    for step in range(STEPS):
        batch = data.batch(torch.randint(len(data), (16,), generator=plain.batches))
        plain.set_rate(learning_rate(step, STEPS, recipe))
        rebuilt = train_step(plain, batch, recipe)
        plain.step += 1
        if plain.step == STEPS:
            plain.log_step(batch, rebuilt)
        if plain.step % 10 == 0 and plain.step <= recipe.resample_until * STEPS:
            aimed += resample(plain, batch, recipe)
    given.train([training])
    plain.autoencoder.rescale(0.5)
    plain.autoencoder.settle()
    assert_same(training.state, plain)
    assert aimed > 0 or family == "frozen_decoder", "no feature was re-aimed"


@pytest.mark.parametrize("encoder", ["tied", "warm_tied"])
def test_a_dense_step_of_products_is_repeated(monkeypatch: pytest.MonkeyPatch, encoder: str) -> None:
    """As on a GPU: nothing of it asks for a value."""
    monkeypatch.setattr(dense, "by_products", lambda tensor: True)
    monkeypatch.setattr(dense_products, "topk_of_columns", exact_topk.topk_of_columns)
    ends = []
    for record in (recorded, None):
        given = session(record)
        training = given.start(untrained("dense", encoder), 0)
        given.train([training])
        ends.append(training.state)
    assert_same(*ends)


def test_a_run_goes_on_from_a_graph_to_calls_and_back(tmp_path: Path) -> None:
    stored: list[bytes] = []

    class Kept(Checkpoint):
        def save(self, state: TrainingState) -> None:
            super().save(state)
            stored.append(self.path.read_bytes())

    def ended(record: Recorder | None) -> TrainingState:
        training = session(record, cadence=Cadence(10, 11)).start(
            untrained(), 0, Kept(tmp_path / "checkpoint", "this")
        )
        session(record, cadence=Cadence(10, 11)).train([training])
        return training.state

    whole = ended(None)
    assert len(stored) == 4
    by_calls = list(stored)
    (tmp_path / "checkpoint").write_bytes(by_calls[1])
    resumed = ended(recorded)
    assert_same(resumed, whole)
    assert stored[-2:] == by_calls[2:], "checkpoints of a graph have the bytes of those of calls"
    (tmp_path / "checkpoint").write_bytes(stored[-2])
    assert_same(ended(None), whole)


def test_many_in_one_graph_end_as_each_alone() -> None:
    """Of two seeds, a kind that needs autograd and a dense one among them; one of them ends early."""
    kinds = [("expander", "tied", 0), ("expander", "full", 0), ("dense", "tied", 0), ("bernoulli", "tied", 1)]

    def start(given: Session, kind: tuple[str, str, int]) -> Training:
        return given.start(untrained(kind[0], kind[1], seed=kind[2]), kind[2])

    given = session(recorded, side_by_side=5, cadence=Cadence(log_every=10))
    together = [start(given, kind) for kind in kinds]
    broken = start(given, kinds[0])
    with torch.no_grad():
        broken.state.autoencoder.b_dec.fill_(math.nan)
    assert given.train([*together, broken]) == 5
    assert broken.state.step == 10 and not broken.state.finite
    for kind, training in zip(kinds, together, strict=True):
        alone = start(given, kind)
        session(None, cadence=Cadence(log_every=10)).train([alone])
        assert_same(training.state, alone.state)


def test_nothing_that_a_step_changes_is_ever_moved(tmp_path: Path) -> None:
    """Through resampling, other rates and a resume: a graph writes to where these tensors were."""
    checkpoint, places = Checkpoint(tmp_path / "checkpoint", "this"), set()

    def watch(row: dict[str, float]) -> None:
        places.add(tuple(each.data_ptr() for each in training.state.changing()))

    for steps in (STEPS // 2, STEPS):
        places.clear()
        cadence = Cadence(log_every=1, checkpoint_last=True)
        given = session(recorded, steps=steps, cadence=cadence)
        training = given.start(untrained(), 0, checkpoint, report=watch)
        before = [each.data_ptr() for each in training.state.changing()]
        assert len(before) == 3 * 4 + 1
        given.train([training])
        assert places == {tuple(before)}


def test_a_step_that_asks_for_a_value_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the selection of the torch kernels asks whether scores were equal
    given = session(recorded)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        given.train([given.start(untrained(), 0)])


def test_the_recording_repeats_operations_and_nothing_else() -> None:
    held, total, python = torch.ones(2), torch.zeros(2), []
    with Recording() as recording:
        python.append(1)
        doubled = held * 2
        total.add_(doubled.view(2))
    held.fill_(3)
    recording.repeat()
    assert python == [1] and doubled.tolist() == [6, 6] and total.tolist() == [8, 8]


@pytest.mark.parametrize("record", [None, recorded])
def test_batches_that_a_thread_reads_ahead_are_the_same(record: Recorder | None) -> None:
    def ended(kind: type[KeptTokens]) -> list[TrainingState]:
        given = session(record, tokens=tokens(kind), side_by_side=3)
        trainings = [given.start(untrained(seed=seed), seed) for seed in (0, 0, 1)]
        given.train(trainings)
        return [training.state for training in trainings]

    for near, far in zip(ended(KeptTokens), ended(Far), strict=True):
        assert_same(far, near)


def test_a_stream_that_somebody_else_draws_from_is_noticed() -> None:
    given = session(None)
    state = given.start(untrained(), 0).state
    one = Round([state], tokens(Far), RECIPE)
    one.step([1e-3])
    torch.randint(9, (1,), generator=state.batches)
    with pytest.raises(AssertionError, match="drawn from by somebody else"):
        one.step([1e-3])


def test_equal_streams_share_a_batch() -> None:
    reads: list[int] = []

    @dataclass(frozen=True, eq=False)
    class Watched(KeptTokens):
        def batch(self, positions: torch.Tensor) -> torch.Tensor:
            reads.append(1)
            return super().batch(positions)

    given = session(None, tokens=tokens(Watched))
    states = [given.start(untrained(seed=seed), seed).state for seed in (0, 1, 0)]
    found = Round(states, given.tokens, RECIPE).step([1e-3] * 3)
    assert len(reads) == 2
    assert found[0][0] is found[2][0] and not torch.equal(found[0][0], found[1][0])


def test_a_cpu_calls_each_step() -> None:
    assert recorder_for([untrained()]) is None and recorder_for([]) is None


def test_room_is_for_the_steps_of_all_and_one_more() -> None:
    few = [untrained() for _ in range(3)]
    need = 4 * bytes_of_step(few[0], 16) + bytes_of_state(few[0])
    assert one_more(few, 16, need) and not one_more(few, 16, need - 1)
    assert one_more([], 16, 0), "a single one is tried, whatever there is"
    assert not one_more(few * 11, 16, 1 << 60)


def test_dense_columns_need_room_for_scores() -> None:
    sizes: Callable[..., int] = lambda family: bytes_of_step(untrained(family), 1000)  # noqa: E731
    assert sizes("dense") - sizes("expander") > 1000 * N * 12
