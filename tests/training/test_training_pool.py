"""Runs of a study that are trained on shards as these are read: the same as by hand, told apart, checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.activations import shards
from expander_sae.activations.pool import build_pool
from expander_sae.activations.shard_list import list_shards
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.errors import UserError
from expander_sae.masks.recipe import MaskRecipe, write_mask
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.stages import lineage
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import Run
from expander_sae.training import shard_pool
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.normalisation import normalisation
from expander_sae.training.run_folder import RunFiles, train_runs
from expander_sae.training.session import Session
from expander_sae.training.shard_pool import ShardPool, ShardTokens
from expander_sae.training.trainer import Trainer
from tests.training.small_data import TOKENS, M, activations

GROUP, SHARD = 16, 80
RECIPE = replace(RECIPES["standard"], batch_size=10, resample_every=25, stream=64)
PLANNED = Run("tiny", "text", 1, "standard-0", "expander", "tied", M, 24, 3, 3, TOKENS, 60, 0, RECIPE)


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of three shards of 80, 80 and 40 tokens."""
    for module in (shards, shard_pool):
        monkeypatch.setattr(module, "ROW_GROUP", GROUP)
    (tmp_path / "shards").mkdir()
    (tmp_path / "pool").mkdir()
    write_mask({"family": "expander", "m": M, "n": 24, "d": 3, "seed": 0}, tmp_path / "mask.json")
    return listed_again(tmp_path)


def listed_again(folder: Path, factor: float = 1) -> Path:
    paths = []
    for number, start in enumerate(range(0, TOKENS, SHARD)):
        token = np.arange(start, min(start + SHARD, TOKENS))
        rows = Rows(
            (token // 8).astype("i4"), (token % 8).astype("i2"), token.astype("i4"), activations()[token]
        )
        rows.activation[-1] *= np.float32(factor)
        about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": number}
        about |= {"shard_tokens": SHARD, "lineage": lineage("extraction")}
        paths.append(folder / "shards" / f"train-{number:05d}.parquet")
        write_shard(paths[-1], rows, about)
    out = folder / "pool" / "train.shards.json"
    list_shards(paths, "train", out, {})
    return out


def train(listed: Path, name: str, run: Run = PLANNED, **how: Any) -> SparseAutoencoder:
    folder = listed.parent.parent
    train_runs([RunFiles(run, folder / name, folder / "mask.json")], listed, **how)
    return SparseAutoencoder.load(folder / name / "weights.safetensors")


def test_it_is_the_training_of_a_session_on_these_shards(listed: Path) -> None:
    pool = ShardPool(listed.parent.parent / "shards", buffer=64)
    tokens = ShardTokens(pool, normalisation(pool, TOKENS, RECIPE))
    session = Session(tokens, RECIPE, 60)
    training = session.start(SparseAutoencoder(M, 24, 3, MaskRecipe("expander", M, 24, 3, 0)), 0)
    session.train([training])
    found = train(listed, "run")
    assert torch.equal(found.values, training.state.autoencoder.values)
    assert found.about["spec"]["recipe_settings"]["stream"] == 64
    assert not list(listed.parent.parent.rglob("*.f32")), "activations lie in the shards alone"


def test_a_killed_run_ends_as_an_undisturbed_one(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(listed, "whole", checkpoint_every=7)
    genuine = Checkpoint.save

    class Killed(Exception):
        pass

    def save_and_die(checkpoint: Checkpoint, state: Any) -> None:
        genuine(checkpoint, state)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checkpoint, "save", save_and_die)
        train(listed, "killed", checkpoint_every=7)
    train(listed, "killed", checkpoint_every=7)
    for name in ("weights.safetensors", "training.csv", "run.json"):
        both = [(listed.parent.parent / folder / name).read_bytes() for folder in ("whole", "killed")]
        assert both[0] == both[1]


def test_a_finished_run_is_trained_again_where_buffer_or_activations_differ(listed: Path) -> None:
    folder = listed.parent.parent
    files = RunFiles(PLANNED, folder / "run", folder / "mask.json")
    assert train_runs([files], listed)
    assert not train_runs([files], listed)
    other = replace(PLANNED, recipe_settings=replace(RECIPE, stream=32))
    assert train_runs([replace(files, run=other)], listed)
    assert train_runs([files], listed_again(folder, 0.5))


def test_shards_that_are_not_those_of_the_list_are_refused(listed: Path) -> None:
    before = listed.read_bytes()
    listed_again(listed.parent.parent, 0.5)
    listed.write_bytes(before)
    with pytest.raises(
        UserError, match=r"train-00000\.parquet: found rows of sha256 .* expected .* as .* says"
    ):
        train(listed, "run")


def test_of_more_shards_the_first_are_what_a_run_depends_on(listed: Path) -> None:
    """So that a finished run stays finished when the split grows."""
    folder = listed.parent.parent
    few = replace(PLANNED, train_tokens=100)
    files = RunFiles(few, folder / "run", folder / "mask.json")
    list_shards(sorted((folder / "shards").iterdir())[:2], "train", listed, {})
    assert train_runs([files], listed)
    assert not train_runs([files], listed_again(folder))


def test_a_pool_is_no_list_and_a_tensor_has_no_shards(listed: Path, tmp_path: Path) -> None:
    paths = sorted((tmp_path / "shards").iterdir())
    build_pool(paths, "train", tmp_path / "train.f32", tmp_path / "train.json", {})
    with pytest.raises(UserError, match=r"train\.json: found no 'folder', expected a list of shards"):
        train_runs([RunFiles(PLANNED, tmp_path / "run", tmp_path / "mask.json")], tmp_path / "train.json")
    with pytest.raises(UserError, match="stream: found 64, expected a ShardPool with this buffer"):
        Trainer(torch.ones(9, 4), n=8, d=2, k=2, stream=64)
    with pytest.raises(UserError, match="activations of width 8, expected m = 9"):
        train(listed, "run", replace(PLANNED, m=9))
