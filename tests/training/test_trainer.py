"""`Trainer`: the workflow's weights, any activations, resume, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expander_sae
from expander_sae.activations.pool import build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.masks.recipe import write_mask
from expander_sae.stages import lineage
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import Run
from expander_sae.training.run_folder import RunFiles, train_runs
from expander_sae.training.step import LOG_COLUMNS
from tests.users import SMALL, TOKENS, M, N, made_up_activations, parameters, trainer


@pytest.fixture(scope="module")
def activations() -> torch.Tensor:
    return made_up_activations()


@pytest.mark.parametrize("support", ["expander", "dense"])
def test_the_trainer_ends_with_the_weights_of_the_workflows_run(
    activations: torch.Tensor, tmp_path: Path, support: str
) -> None:
    part = np.arange(TOKENS)
    rows = Rows(
        (part // 8).astype("i4"), (part % 8).astype("i2"), part.astype("i4"), activations.clone().numpy()
    )
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": 0}
    write_shard(
        tmp_path / "0.parquet", rows, about | {"shard_tokens": TOKENS, "lineage": lineage("extraction")}
    )
    build_pool([tmp_path / "0.parquet"], "train", tmp_path / "p.f32", tmp_path / "p.json", {})
    write_mask({"family": "expander", "m": M, "n": N, "d": 4, "seed": 5}, tmp_path / "mask.json")
    d = M if support == "dense" else 4
    recipe = replace(RECIPES["tuned"], **SMALL)
    run = Run("tiny", "text", 1, "tuned", support, "tied", M, N, d, 3, TOKENS, 60, 5, recipe)
    mask = None if support == "dense" else tmp_path / "mask.json"
    train_runs([RunFiles(run, tmp_path / "run", mask)], tmp_path / "p.json")

    told: list[dict[str, float]] = []
    mine = trainer(activations, support=support, d=d, seed=5, on_log=told.append, log_every=20)
    trained = mine.fit(steps=60)
    theirs = expander_sae.load(tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(parameters(trained), parameters(theirs), strict=True))
    assert trained.about["norm_limit"] == theirs.about["norm_limit"] == mine.norm_limit
    of_a_study = {"model": "tiny", "corpus": "text", "layer": 1, "recipe": "tuned"}
    assert trained.about["spec"] | of_a_study == theirs.about["spec"], "recorded under the workflow's names"
    assert [row["step"] for row in told] == [20, 40, 60] and told == mine.log
    assert set(told[0]) == set(LOG_COLUMNS)


def test_dtypes_arrays_and_devices_of_activations_do_not_matter(activations: torch.Tensor) -> None:
    narrow = activations.bfloat16()
    expected = parameters(trainer(narrow.float()).fit(25))
    for same in (narrow, narrow.double(), narrow.float().numpy()):
        assert all(
            torch.equal(a, b) for a, b in zip(expected, parameters(trainer(same).fit(25)), strict=True)
        )


def test_a_stopped_training_goes_on_from_its_checkpoint(activations: torch.Tensor, tmp_path: Path) -> None:
    whole = parameters(trainer(activations).fit(60))
    file = tmp_path / "checkpoint.safetensors"
    settings: dict[str, Any] = {"checkpoint": file, "checkpoint_every": 7, "log_every": 5}

    class Stopped(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 30:
            raise Stopped

    with pytest.raises(Stopped):
        trainer(activations, on_log=stop, **settings).fit(60)
    told: list[dict[str, float]] = []
    again = trainer(activations, on_log=told.append, **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole, parameters(again.fit(60)), strict=True))
    assert told[0]["step"] == 30, "steps 1 to 28 were in the checkpoint"
    assert [row["step"] for row in again.log] == list(range(5, 61, 5)), "the log is whole"
    told.clear()
    assert all(torch.equal(a, b) for a, b in zip(whole, parameters(again.fit(60)), strict=True))
    assert not told, "a finished training is read, not repeated"
    with pytest.raises(expander_sae.UserError, match=r"checkpoint\.safetensors: a checkpoint of other"):
        trainer(activations, seed=1, **settings).fit(60)
    with pytest.raises(expander_sae.UserError, match="a checkpoint of other"):
        trainer(activations + 1, **settings).fit(60)


def test_wrong_arguments_are_named(activations: torch.Tensor) -> None:
    with_hole = activations.clone()
    with_hole[7, 3] = math.nan
    for changes, message in (
        ({"activations": with_hole}, "not finite in row 7"),
        ({"activations": activations[0]}, r"activations: found \[12\] of torch.float32, expected"),
        ({"activations": activations[:0]}, "activations: found no token"),
        ({"activations": activations.long()}, r"of torch.int64, expected a floating-point tensor"),
        ({"d": None}, "d: found none, expected 1 to m = 12"),
        ({"support": "dense"}, "d: found 4, expected none"),
        ({"support": "round"}, "round"),
        ({"batchsize": 3}, "training.batchsize: unknown key"),
        ({"recipe": "mine"}, "recipe: found 'mine'"),
        ({"device": "nowhere"}, "nowhere"),
        ({"k": 49}, "k: found 49"),
    ):
        with pytest.raises(expander_sae.UserError, match=message):
            trainer(**({"activations": activations} | changes)).fit(5)
    with pytest.raises(expander_sae.UserError, match="steps: found 0"):
        trainer(activations).fit(0)
    with pytest.raises(expander_sae.UserError, match="the loss was not finite at step"):
        trainer(activations, bias_rate=1e30, clip_norm=1e30, log_every=1).fit(50)


def test_arrays_in_any_order_of_memory_are_trained_on(activations: torch.Tensor) -> None:
    array = activations.numpy()
    expected = parameters(trainer(np.ascontiguousarray(array[::-1])).fit(10))
    for same in (array[::-1], np.asfortranarray(array[::-1]), array[::-1].astype(">f4")):
        assert all(
            torch.equal(a, b) for a, b in zip(expected, parameters(trainer(same).fit(10)), strict=True)
        )


def test_sizes_that_are_no_whole_numbers_are_named(activations: torch.Tensor) -> None:
    wrong: dict[str, Any] = {"n": "48", "k": 4.0, "d": 3.0, "seed": 1.5, "log_every": "1"}
    for name, value in wrong.items():
        with pytest.raises(
            expander_sae.UserError, match=f"^{name}: found {value!r}, expected a whole number"
        ):
            trainer(activations, **{name: value})
    with pytest.raises(expander_sae.UserError, match=r"steps: found 5\.0, expected a whole number"):
        trainer(activations).fit(5.0)  # type: ignore[arg-type]
    fitted = trainer(activations, n=np.int64(N), k=np.int32(3), seed=np.int64(2)).fit(5)
    same = trainer(activations, seed=2).fit(5)
    assert all(torch.equal(a, b) for a, b in zip(parameters(fitted), parameters(same), strict=True))
    assert fitted.about == same.about
