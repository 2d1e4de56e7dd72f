"""A run on disk: folded scale, resume, reuse and refusal; and its measurements end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.activations.pool import Pool, build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.errors import UserError
from expander_sae.evaluation.storage import storage
from expander_sae.masks.recipe import MaskRecipe, write_mask
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import Run
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.normalisation import normalisation
from expander_sae.training.run_folder import RunFiles, fingerprint, train_runs
from expander_sae.training.step import LOG_COLUMNS, TrainingState

M, N, TOKENS = 12, 48, 400
RECIPE = replace(RECIPES["standard"], batch_size=16, resample_every=20)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    generator = torch_generator(0, "pool")
    values = (30 * torch.randn(TOKENS, M, generator=generator) + 5).numpy()
    values[::50] *= 500  # massive activations
    part = np.arange(TOKENS)
    rows = Rows((part // 8).astype("i4"), (part % 8).astype("i2"), part.astype("i4"), values)
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": 0}
    about |= {"shard_tokens": TOKENS, "lineage": lineage("extraction")}
    write_shard(tmp_path / "shard.parquet", rows, about)
    build_pool([tmp_path / "shard.parquet"], "train", tmp_path / "train.f32", tmp_path / "train.json", {})
    return tmp_path / "train.json"


PLANNED = Run("tiny", "text", 1, "standard", "expander", "tied", M, N, 4, 3, TOKENS, 60, 0, RECIPE)


def planned(**changes: Any) -> Run:
    return replace(PLANNED, **changes)


def train(
    run: Run, pool: Path, mask: Path | None, folder: Path, parent: Path | None = None, **how: Any
) -> bool:
    return train_runs([RunFiles(run, folder, mask, parent)], pool, **how)


def mask(folder: Path, **changes: Any) -> Path:
    path = folder / f"mask{len(list(folder.glob('mask*')))}.json"
    write_mask({"family": "expander", "m": M, "n": N, "d": 4, "seed": 0} | changes, path)
    return path


def test_weights_work_on_the_models_own_activations(pool: Path, tmp_path: Path) -> None:
    assert train(planned(), pool, mask(tmp_path), tmp_path / "run")
    sae = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors")
    about = sae.about
    opened = Pool.open(pool)
    scaling = normalisation(opened, TOKENS, RECIPE)
    h = torch.from_numpy(np.array(opened.activations[scaling.kept]))
    error = float(((h - sae.decode(sae.encode(h))).norm(dim=1) / h.norm(dim=1)).mean())
    last = (tmp_path / "run" / "training.csv").read_text().splitlines()[-1].split(",")
    assert abs(error - float(last[2])) < 0.1, "the error in model units is the one of the scaled training"
    assert about["norm_limit"] == scaling.limit < opened.norms.max()
    assert len(scaling.kept) == TOKENS - TOKENS // 50


def test_a_killed_run_ends_as_an_undisturbed_one(pool: Path, tmp_path: Path, monkeypatch: Any) -> None:
    masked = mask(tmp_path)
    train(planned(), pool, masked, tmp_path / "whole", checkpoint_every=7)
    saves = 0

    class Killed(Exception):
        pass

    genuine = Checkpoint.save

    def save_and_die(checkpoint: Checkpoint, state: TrainingState) -> None:
        nonlocal saves
        genuine(checkpoint, state)
        saves += 1
        if saves in (2, 4):
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    for _ in range(2):
        with pytest.raises(Killed):
            train(planned(), pool, masked, tmp_path / "killed", checkpoint_every=7)
        assert not (tmp_path / "killed" / "weights.safetensors").exists()
    assert train(planned(), pool, masked, tmp_path / "killed", checkpoint_every=7)
    assert saves == 8, "60 steps have eight checkpoints, none of them made twice"
    for name in ("weights.safetensors", "training.csv", "run.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "killed" / "checkpoint.safetensors").exists()


def test_seeds_side_by_side_write_what_each_writes_alone(
    pool: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    masks = {seed: mask(tmp_path, seed=seed) for seed in range(3)}

    def files(folder: str) -> list[RunFiles]:
        return [RunFiles(planned(seed=seed), tmp_path / folder / str(seed), masks[seed]) for seed in masks]

    assert train_runs(files("alone"), pool, checkpoint_every=7)
    genuine, saves = Checkpoint.save, 0

    class Killed(Exception):
        pass

    def save_and_die(checkpoint: Checkpoint, state: TrainingState) -> None:
        nonlocal saves
        genuine(checkpoint, state)
        saves += 1
        if saves == 8:
            raise Killed  # between the checkpoints of one step: the runs go on from different ones

    assert train_runs(files("together")[1:2], pool), "one is there already"
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checkpoint, "save", save_and_die)
        train_runs(files("killed"), pool, checkpoint_every=7, side_by_side=3)
    for folder in ("together", "killed"):
        assert train_runs(files(folder), pool, checkpoint_every=7, side_by_side=3)
        assert not train_runs(files(folder), pool)
        for seed in masks:
            alone = sorted((tmp_path / "alone" / str(seed)).iterdir())
            assert [file.name for file in alone] == ["run.json", "training.csv", "weights.safetensors"]
            for file in alone:
                found = tmp_path / folder / str(seed) / file.name
                assert found.read_bytes() == file.read_bytes(), found


def test_runs_of_one_session_share_its_recipe_and_steps(pool: Path, tmp_path: Path) -> None:
    runs = [RunFiles(planned(support="dense", d=M, steps=steps), tmp_path / "run") for steps in (5, 6)]
    with pytest.raises(ValueError, match="runs of 2 sessions, expected one"):
        train_runs(runs, pool)


def test_a_finished_run_is_kept_and_any_other_is_made_again(pool: Path, tmp_path: Path) -> None:
    folder, masked = tmp_path / "run", mask(tmp_path)
    assert train(planned(), pool, masked, folder)
    assert not train(planned(), pool, masked, folder)
    assert train(planned(steps=61), pool, masked, folder)
    assert train(planned(), pool, masked, folder)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert train(planned(), pool, masked, folder), "truncated weights are not a finished run"


def test_a_checkpoint_that_outlived_its_run_is_removed(pool: Path, tmp_path: Path) -> None:
    """A kill can fall between the last of a run's files and the end of its checkpoint."""
    masked, folder = mask(tmp_path), tmp_path / "run"
    assert train(planned(), pool, masked, folder)
    files = sorted(folder.iterdir())
    (folder / "checkpoint.safetensors").write_bytes(b"left behind")
    assert not train(planned(), pool, masked, folder)
    assert sorted(folder.iterdir()) == files


def test_a_damaged_log_is_made_again(pool: Path, tmp_path: Path) -> None:
    folder, masked = tmp_path / "run", mask(tmp_path)
    train(planned(), pool, masked, folder)
    log = folder / "training.csv"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"0", b"1", 1))
    assert train(planned(), pool, masked, folder)
    assert log.read_bytes() == whole


def test_another_runs_or_a_damaged_checkpoint_is_ignored(pool: Path, tmp_path: Path) -> None:
    masked = mask(tmp_path)
    train(planned(), pool, masked, tmp_path / "whole")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes(b"nothing of the kind")
    train(planned(), pool, masked, folder)
    whole = (tmp_path / "whole" / "weights.safetensors").read_bytes()
    assert (folder / "weights.safetensors").read_bytes() == whole


def test_recipe_paper_has_no_limit_and_valid_json(pool: Path, tmp_path: Path) -> None:
    settings = replace(RECIPES["paper"], batch_size=16, resample_every=20)
    paper = planned(recipe="paper", recipe_settings=settings, support="dense", d=M)
    train(paper, pool, None, tmp_path / "run")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=refuse)
    assert record["norm_limit"] is None and record["kept_tokens"] == TOKENS


def test_what_does_not_fit_is_named(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="activations of width 12, expected m = 13"):
        train(planned(m=13), pool, mask(tmp_path), tmp_path / "run")
    with pytest.raises(UserError, match="found 400 tokens, expected 401"):
        train(planned(train_tokens=401), pool, mask(tmp_path), tmp_path / "run")
    with pytest.raises(UserError, match=r"mask\d\.json: found MaskRecipe\(.* seed=1\), expected .* seed=0\)"):
        mask(tmp_path)
        train(planned(), pool, mask(tmp_path, seed=1), tmp_path / "run")
    with pytest.raises(UserError, match="a mask file is needed"):
        train(planned(), pool, None, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def dense_parent(pool: Path, folder: Path, **changes: Any) -> Path:
    train(planned(support="dense", d=M, **changes), pool, None, folder)
    return folder / "weights.safetensors"


def test_a_pruned_run_starts_at_the_largest_entries_of_its_dense_run(pool: Path, tmp_path: Path) -> None:
    parent = dense_parent(pool, tmp_path / "dense", steps=1)
    pruned = planned(support="pruned_retuned", steps=1)
    assert train(pruned, pool, None, tmp_path / "run", parent=parent)
    assert not train(pruned, pool, None, tmp_path / "run", parent=parent)
    dense = SparseAutoencoder.load(parent)
    about = dense.about
    found = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors")
    own = found.about
    assert found.mask is not None and found.mask.rows.shape == (N, 4)
    largest = dense.values.detach().abs().topk(4, dim=1).indices.sort(dim=1).values
    assert torch.equal(torch.from_numpy(found.mask.rows).long(), largest)
    kept = dense.values.detach().gather(1, largest)
    # One step of Adam moves a value by the learning rate at most, in the units of training.
    moved = {
        "values": found.values - kept / kept.norm(dim=1, keepdim=True),
        "b_enc": (found.b_enc - dense.b_enc) * own["scale"],
        "b_dec": (found.b_dec - dense.b_dec) * own["scale"],
    }
    for name, change in moved.items():
        assert 0 < float(change.detach().abs().max()) < 4e-4, name
    assert own["fingerprint"] != about["fingerprint"]


def test_another_dense_run_is_another_pruned_run(pool: Path, tmp_path: Path) -> None:
    pruned = planned(support="pruned_retuned", steps=3)
    first = dense_parent(pool, tmp_path / "dense", steps=3)
    train(pruned, pool, None, tmp_path / "run", parent=first)
    tensors, header = load_tensors(first)
    header["about"]["fingerprint"] = "of other stages"
    save_tensors(tensors, first, header)
    assert train(pruned, pool, None, tmp_path / "run", parent=first), "its parent has changed"
    with pytest.raises(UserError, match=r"weights\.safetensors: seed = 0, expected 1"):
        train(replace(pruned, seed=1), pool, None, tmp_path / "run", parent=first)
    with pytest.raises(UserError, match="the weights of a dense run are needed"):
        train(pruned, pool, None, tmp_path / "run")


@pytest.mark.parametrize("encoder", ["own_support", "full"])
def test_encoders_apart_from_the_decoder_are_trained_and_resampled(
    pool: Path, tmp_path: Path, encoder: str
) -> None:
    recipe = replace(RECIPE, resample_min_fires=30, resample_max_dead=1.0)
    apart = planned(encoder=encoder, recipe_settings=recipe)
    assert train(apart, pool, mask(tmp_path), tmp_path / "run", checkpoint_every=7)
    found = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors")
    assert found.encoder is not None and torch.isfinite(found.encoder).all()
    assert found.encoder.shape == (N, M if encoder == "full" else 4)


def test_fingerprints_of_runs_without_a_parent_are_as_they_were(pool: Path) -> None:
    opened = Pool.open(pool)
    asked = planned(support="dense", d=M)
    old = {
        "spec": asked.spec,
        "pool": opened.prefix_digest(TOKENS),
        "mask": None,
        "lineage": lineage("training"),
    }
    assert fingerprint(
        asked,
        opened.prefix_digest(asked.train_tokens),
        MaskRecipe(asked.support, asked.m, asked.n, asked.d, 0),
    ) == digest(old)


@pytest.mark.parametrize("support", ["expander", "pruned_retuned"])
def test_a_rounded_run_stores_what_its_parent_ended_with(support: str, pool: Path, tmp_path: Path) -> None:
    wide, own = planned(support=support, steps=3), tmp_path / "wide"
    if support == "expander":
        train(wide, pool, mask(tmp_path), own)
    else:
        train(wide, pool, None, own, parent=dense_parent(pool, tmp_path / "dense", steps=3))
    weights = own / "weights.safetensors"
    rounded = replace(wide, precision="int8")
    assert train(rounded, pool, None, tmp_path / "int8", parent=weights)
    assert not train(rounded, pool, None, tmp_path / "int8", parent=weights), "it is there"
    found = SparseAutoencoder.load(tmp_path / "int8" / "weights.safetensors")
    parent = SparseAutoencoder.load(weights)
    assert found.precision == "int8" and torch.equal(found.values, parent.stored("int8").values)
    assert Run.from_spec(found.about["spec"]) == rounded
    for name in ("norm_limit", "scale"):
        assert found.about[name] == parent.about[name]
    logs = [(folder / "training.csv").read_bytes() for folder in (tmp_path / "int8", weights.parent)]
    assert logs[0] == logs[1] and logs[0].count(b"\n") > 1, "that of what it rounds"
    record = json.loads((tmp_path / "int8" / "run.json").read_text())
    assert record["fingerprint"] == found.about["fingerprint"] != parent.about["fingerprint"]
    tensors, header = load_tensors(weights)
    header["about"]["fingerprint"] = "of other stages"
    save_tensors(tensors, weights, header)
    assert train(rounded, pool, None, tmp_path / "int8", parent=weights), "its parent has changed"
    with pytest.raises(UserError, match=r"weights\.safetensors: seed = 0, expected 1"):
        train(replace(rounded, seed=1), pool, None, tmp_path / "int8", parent=weights)
    with pytest.raises(UserError, match=rf"precision int8: the weights of a {support} run in float32 are"):
        train(rounded, pool, None, tmp_path / "int8")


def test_a_run_that_is_trained_in_a_precision_is_closer_than_a_rounded_one(
    pool: Path, tmp_path: Path
) -> None:
    """One bit loses much, of which training that sees them gets a part back."""
    recipe = replace(RECIPE, learning_rate=0.01)
    wide = planned(steps=200, recipe_settings=recipe)
    train(wide, pool, mask(tmp_path), tmp_path / "wide")
    rounded, trained = (replace(wide, precision=name) for name in ("int1", "int1_trained"))
    train(rounded, pool, None, tmp_path / "int1", parent=tmp_path / "wide" / "weights.safetensors")
    assert train(trained, pool, mask(tmp_path), tmp_path / "trained", checkpoint_every=50)
    opened = Pool.open(pool)
    h = torch.from_numpy(np.array(opened.activations[normalisation(opened, TOKENS, recipe).kept]))
    error = {}
    for name in ("int1", "trained"):
        sae = SparseAutoencoder.load(tmp_path / name / "weights.safetensors")
        error[name] = float(((h - sae.decode(sae.encode(h))).norm(dim=1) / h.norm(dim=1)).mean())
    assert error["trained"] < error["int1"] - 0.01
    assert sae.precision == "int1" and set(sae.values.unique().tolist()) == {-1, 1}
    last = (tmp_path / "trained" / "training.csv").read_text().splitlines()[-1].split(",")
    assert abs(error["trained"] - float(last[2])) < 0.1, "what was trained is what is stored"


def test_runs_to_train_and_to_round_share_no_job(pool: Path, tmp_path: Path) -> None:
    runs = [RunFiles(planned(precision=name), tmp_path / name) for name in ("float32", "int8")]
    with pytest.raises(ValueError, match="runs to train beside runs to round"):
        train_runs(runs, pool)


@pytest.mark.parametrize("support", ["pca", "random", "exemplars"])
def test_what_nobody_trains_is_fitted_by_the_same_job(pool: Path, tmp_path: Path, support: str) -> None:
    shape = {"pca": {"n": 8, "d": M}, "exemplars": {"d": M}}.get(support, {})
    run = planned(support=support, steps=0, **shape)
    assert train(run, pool, None, tmp_path / "run")
    assert (tmp_path / "run" / "training.csv").read_text() == ",".join(LOG_COLUMNS) + "\n"
    sae = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors")
    opened = Pool.open(pool)
    kept = opened.activations[normalisation(opened, TOKENS, RECIPE).kept].astype(np.float64)
    np.testing.assert_allclose(sae.b_dec.detach().numpy(), kept.mean(axis=0), rtol=1e-5)
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    assert not train(run, pool, None, tmp_path / "run"), "it is finished"
    assert train(run, pool, None, tmp_path / "again")
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == weights
    counted = storage(sae)
    if support == "exemplars":  # token 0 is massive: the last of 48 is token 48, of the seventh document
        assert counted["storage_ids_bytes"] == 2 * 49 + 2 * 7
