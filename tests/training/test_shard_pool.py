"""Shards that are read as they are trained on: order, equality with a pool, resumption, checks, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from expander_sae.activations import shards
from expander_sae.activations.pool import Pool, build_pool
from expander_sae.activations.shards import Rows, Shard, write_shard
from expander_sae.cli.main import main
from expander_sae.errors import UserError
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from expander_sae.study.recipes import RECIPES
from expander_sae.training import shard_pool
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.normalisation import KeptTokens, normalisation
from expander_sae.training.recording import Call
from expander_sae.training.rounds import Round
from expander_sae.training.session import Cadence, Session, Training
from expander_sae.training.shard_pool import ShardPool, ShardTokens
from expander_sae.training.step import TrainingState
from expander_sae.training.trainer import Trainer
from tests.training.small_data import TOKENS, M, activations

SHARD, GROUP, BATCH, STEPS = 80, 16, 10, 60
RECIPE = replace(RECIPES["standard"], batch_size=BATCH, resample_every=25, resample_max_dead=1.0)


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (shards, shard_pool):
        monkeypatch.setattr(module, "ROW_GROUP", GROUP)


@pytest.fixture
def folder(tmp_path: Path, small_row_groups: None) -> Path:
    """Three shards of 80, 80 and 40 tokens; every fiftieth token is massive."""
    for number, start in enumerate(range(0, TOKENS, SHARD)):
        token = np.arange(start, min(start + SHARD, TOKENS))
        columns = (token // 8).astype("i4"), (token % 8).astype("i2"), token.astype("i4")
        about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": number}
        about |= {"shard_tokens": SHARD, "lineage": lineage("extraction")}
        write_shard(tmp_path / f"train-{number:05d}.parquet", Rows(*columns, activations()[token]), about)
    return tmp_path


def tokens_of(folder: Path, buffer: int = 64, tokens: int | None = None) -> ShardTokens:
    pool = ShardPool(folder, tokens=tokens, buffer=buffer)
    return ShardTokens(pool, normalisation(pool, len(pool.norms), RECIPE))


def drawn(tokens: ShardTokens, steps: int, seed: int = 0) -> list[Tensor]:
    stream = torch_generator(seed, "batches")
    return [tokens.draw(stream, step, BATCH) for step in range(steps)]


def start(
    tokens: KeptTokens | ShardTokens, checkpoint: Checkpoint | None = None, seed: int = 0
) -> tuple[Session, Training]:
    autoencoder = SparseAutoencoder(M, 24, 3, MaskRecipe("expander", M, 24, 3, 0))
    session = Session(tokens, RECIPE, STEPS, Cadence(log_every=10, checkpoint_every=7))
    return session, session.start(autoencoder, seed, checkpoint)


def assert_same(found: TrainingState, expected: TrainingState) -> None:
    there = found.tensors()
    for name, tensor in expected.tensors().items():
        if name != "generator.batches":  # which draws nothing where the order is that of shards
            assert torch.equal(tensor, there[name]), name


@pytest.mark.parametrize("buffer", [1, 64, 10_000])
def test_an_epoch_has_every_kept_token_of_each_filling_at_most_once(folder: Path, buffer: int) -> None:
    tokens = tokens_of(folder, buffer)
    fillings, ends = tokens._order(torch_generator(0, "batches").initial_seed(), 0, BATCH)
    assert sum(group.tokens for filling in fillings for group in filling) == TOKENS
    limit = tokens.normalisation.limit
    massive = set(np.flatnonzero(np.linalg.norm(activations().astype(np.float64), axis=1) > limit).tolist())
    assert len(massive) == 4
    batches = drawn(tokens, ends[-1])
    for first, end, filling in zip([0, *ends], ends, fillings, strict=False):
        seen = Counter(int(row) for batch in batches[first:end] for row in batch)
        rows = {row for group in filling for row in range(group.first, group.first + group.tokens)}
        assert seen.keys() <= rows - massive
        spare = (end - first) * BATCH - len(rows - massive)
        assert sum(count - 1 for count in seen.values()) == max(0, spare)


def test_the_order_depends_on_the_seed_and_the_step_alone(folder: Path) -> None:
    expected = drawn(tokens_of(folder), STEPS)
    other = tokens_of(folder)
    for step in (STEPS - 1, 3, 40, 0, 17):
        assert torch.equal(other.draw(torch_generator(0, "batches"), step, BATCH), expected[step])
    assert not any(torch.equal(*pair) for pair in zip(drawn(other, 9, seed=1), expected, strict=False))
    first, second = expected[:20], expected[20:40]  # an epoch each
    assert not any(torch.equal(*pair) for pair in zip(first, second, strict=True))


@dataclass(frozen=True, eq=False)
class InOrder(KeptTokens):
    """Rows of a pool in an order that is given."""

    order: tuple[Tensor, ...] = ()

    def draw(self, stream: torch.Generator, step: int, size: int) -> Tensor:
        return torch.searchsorted(torch.from_numpy(self.normalisation.kept), self.order[step])


def test_training_equals_that_from_the_pool_in_the_same_order(folder: Path) -> None:
    paths = sorted(folder.glob("train-*.parquet"))
    build_pool(paths, "train", folder / "train.f32", folder / "train.json")
    pool = Pool.open(folder / "train.json")
    streamed = tokens_of(folder)
    scaling = normalisation(pool, TOKENS, RECIPE)
    assert (scaling.limit, scaling.scale) == (streamed.normalisation.limit, streamed.normalisation.scale)
    assert np.array_equal(scaling.mean, streamed.normalisation.mean)
    held = torch.from_numpy(np.array(pool.activations))
    session, training = start(InOrder(held, scaling, order=tuple(drawn(streamed, STEPS))))
    session.train([training])
    other, again = start(streamed)
    other.train([again])
    assert_same(again.state, training.state)


@pytest.mark.parametrize("stop", [7, 31])
def test_a_killed_training_goes_on_to_equal_bytes(folder: Path, stop: int, tmp_path: Path) -> None:
    session, whole = start(tokens_of(folder))
    session.train([whole])
    checkpoint = Checkpoint(tmp_path / "checkpoint", "same")
    cut, killed = start(tokens_of(folder), checkpoint)
    together = Round([killed.state], cut.tokens, RECIPE)
    while killed.state.step < stop:
        cut._advance([killed], together)
    again, resumed = start(tokens_of(folder), checkpoint)
    assert resumed.state.step == stop - stop % 7
    again.train([resumed])
    assert_same(resumed.state, whole.state)


def test_many_beside_each_other_end_as_each_alone(folder: Path, tmp_path: Path) -> None:
    """Of two seeds, and of two places in one order; nothing that reads shards is recorded."""

    def refused(body: Call, changed: Sequence[Tensor]) -> Call:
        raise AssertionError("a recording repeats no reading")

    checkpoint = Checkpoint(tmp_path / "checkpoint", "same")
    ahead, first = start(tokens_of(folder), checkpoint)
    together = Round([first.state], ahead.tokens, RECIPE)
    for _ in range(7):
        ahead._advance([first], together)
    tokens = tokens_of(folder)
    trainings = [start(tokens, seed=seed)[1] for seed in (0, 1)] + [start(tokens, checkpoint)[1]]
    assert [training.state.step for training in trainings] == [0, 0, 7]
    many = replace(start(tokens)[0], side_by_side=3, record=refused)
    assert many.train([replace(training, checkpoint=None) for training in trainings]) == 3
    for training, seed in zip(trainings, (0, 1, 0), strict=True):
        alone, expected = start(tokens_of(folder), seed=seed)
        alone.train([expected])
        assert_same(training.state, expected.state)


def test_the_first_tokens_are_all_that_is_read_of_them(folder: Path) -> None:
    tokens = tokens_of(folder, tokens=100)
    assert max(int(batch.max()) for batch in drawn(tokens, 30)) < 100
    assert tokens.pool.groups[-1].tokens == 4 and tokens.pool.groups[-1].shard == 1
    assert np.array_equal(tokens.pool[70:95], activations()[70:95])
    assert tokens.pool.digest() != tokens_of(folder, tokens=99).pool.digest()
    assert tokens.pool.digest() != tokens_of(folder, 32, 100).pool.digest()


def test_each_shard_is_checked_once_and_when_it_is_first_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_pool, "FIRST", 20)
    checked: list[str] = []
    whole = shards.open_sealed
    monkeypatch.setattr(shards, "open_sealed", lambda path: checked.append(path.name) or whole(path))
    tokens = tokens_of(folder, buffer=16)
    assert checked == ["train-00000.parquet"], "for the norms of the first tokens"
    drawn(tokens, 60)
    assert sorted(checked) == [f"train-0000{number}.parquet" for number in range(3)]


def test_an_altered_shard_is_named_when_it_is_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_pool, "FIRST", 20)
    path = folder / "train-00001.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    tokens = tokens_of(folder, buffer=16)
    with pytest.raises(UserError, match=r"train-00001\.parquet: altered"):
        drawn(tokens, 20)


def test_what_is_no_whole_split_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"found no shard, expected test-00000\.parquet and all that follow"):
        ShardPool(folder, "test")
    with pytest.raises(UserError, match="found 200 tokens in the train split, expected 201"):
        ShardPool(folder, tokens=201)
    (folder / "train-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"found shards \[0, 2\], expected train-00000\.parquet and all"):
        ShardPool(folder)


def test_a_row_group_of_another_size_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_pool, "ROW_GROUP", 2 * GROUP)
    with pytest.raises(UserError, match=r"train-00000\.parquet: found a row group of 16 tokens, expected 32"):
        ShardPool(folder)


def test_the_trainer_and_the_command_read_shards(folder: Path, tmp_path: Path) -> None:
    settings = {"n": 24, "d": 3, "k": 3, "batch_size": BATCH}
    streamed = Trainer(ShardPool(folder, buffer=64), **settings, device="cpu").fit(30)  # type: ignore[arg-type]
    assert streamed.about["spec"]["train_tokens"] == TOKENS
    out = tmp_path / "out.safetensors"
    command = (
        f"train {folder} --n 24 --d 3 --k 3 --steps 30 --set batch_size={BATCH} --stream 64 --device cpu"
    )
    main([*command.split(), "--out", str(out)])
    assert torch.equal(SparseAutoencoder.load(out).values, streamed.values)
    with pytest.raises(UserError, match="support: found one that is fitted"):
        Trainer(ShardPool(folder), n=6, k=3, support="exemplars", device="cpu").fit(1)


def test_shards_in_16_bits_are_trained_on_as_what_they_hold(folder: Path, tmp_path: Path) -> None:
    """Bit for bit as shards of float32 that hold the rounded numbers; a folder of both kinds is refused."""
    ends = {}
    for stored in ("bfloat16", "float32"):
        other = tmp_path / stored
        other.mkdir()
        for path in sorted(folder.glob("*.parquet")):
            shard = Shard(path)
            held = [(*rows.of_tokens, rows.activation) for rows in shard.row_groups()]
            columns = [np.concatenate([column[i] for column in held]) for i in range(4)]
            columns[3] = torch.from_numpy(columns[3]).bfloat16().float().numpy()
            about = {key: value for key, value in shard.about.items() if key not in ("m", "tokens", "sha256")}
            write_shard(other / path.name, Rows(*columns), about, stored)
        session, training = start(tokens_of(other))
        session.train([training])
        ends[stored] = training.state
    assert_same(*ends.values())
    (folder / "train-00001.parquet").write_bytes((tmp_path / "bfloat16/train-00001.parquet").read_bytes())
    with pytest.raises(UserError, match=r"train-00001\.parquet: found stored 'bfloat16', expected None"):
        ShardPool(folder)
