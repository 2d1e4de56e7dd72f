"""A run on disk: folded scale, resume, reuse and refusal; and its measurements end to end."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae import runs
from expander_sae.activations.pool import Pool, build_pool, normalisation
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import UserError
from expander_sae.masks import write_mask
from expander_sae.recipes import RECIPES
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage

M, N, TOKENS = 12, 48, 400
RECIPE = asdict(replace(RECIPES["standard"], batch_size=16, resample_every=20))


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


def spec(**changes: Any) -> dict[str, Any]:
    base = {"model": "tiny", "corpus": "text", "layer": 1, "recipe": "standard", "recipe_settings": RECIPE}
    base |= {"support": "expander", "encoder": "tied", "m": M, "n": N, "d": 4, "k": 3}
    return base | {"train_tokens": TOKENS, "steps": 60, "seed": 0} | changes


def mask(folder: Path, **changes: Any) -> Path:
    path = folder / f"mask{len(list(folder.glob('mask*')))}.json"
    write_mask({"family": "expander", "m": M, "n": N, "d": 4, "seed": 0} | changes, path)
    return path


def test_weights_work_on_the_models_own_activations(pool: Path, tmp_path: Path) -> None:
    assert runs.train_run(spec(), pool, mask(tmp_path), tmp_path / "run")
    sae, about = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors")
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
    runs.train_run(spec(), pool, masked, tmp_path / "whole", checkpoint_every=7)
    saves = 0

    class Killed(Exception):
        pass

    genuine = runs._save_checkpoint

    def save_and_die(*arguments: Any) -> None:
        nonlocal saves
        genuine(*arguments)
        saves += 1
        if saves in (2, 4):
            raise Killed

    monkeypatch.setattr(runs, "_save_checkpoint", save_and_die)
    for _ in range(2):
        with pytest.raises(Killed):
            runs.train_run(spec(), pool, masked, tmp_path / "killed", checkpoint_every=7)
        assert not (tmp_path / "killed" / "weights.safetensors").exists()
    assert runs.train_run(spec(), pool, masked, tmp_path / "killed", checkpoint_every=7)
    assert saves == 8, "60 steps have eight checkpoints, none of them made twice"
    for name in ("weights.safetensors", "training.csv", "run.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "killed" / "checkpoint.safetensors").exists()


def test_a_finished_run_is_kept_and_any_other_is_made_again(pool: Path, tmp_path: Path) -> None:
    folder, masked = tmp_path / "run", mask(tmp_path)
    assert runs.train_run(spec(), pool, masked, folder)
    assert not runs.train_run(spec(), pool, masked, folder)
    assert runs.train_run(spec(steps=61), pool, masked, folder)
    assert runs.train_run(spec(), pool, masked, folder)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert runs.train_run(spec(), pool, masked, folder), "truncated weights are not a finished run"


def test_another_runs_or_a_damaged_checkpoint_is_ignored(pool: Path, tmp_path: Path) -> None:
    masked = mask(tmp_path)
    runs.train_run(spec(), pool, masked, tmp_path / "whole")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes(b"nothing of the kind")
    runs.train_run(spec(), pool, masked, folder)
    whole = (tmp_path / "whole" / "weights.safetensors").read_bytes()
    assert (folder / "weights.safetensors").read_bytes() == whole


def test_recipe_paper_has_no_limit_and_valid_json(pool: Path, tmp_path: Path) -> None:
    settings = asdict(replace(RECIPES["paper"], batch_size=16, resample_every=20))
    paper = spec(recipe="paper", recipe_settings=settings, support="dense", d=M)
    runs.train_run(paper, pool, None, tmp_path / "run")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=refuse)
    assert record["norm_limit"] is None and record["kept_tokens"] == TOKENS


def test_what_does_not_fit_is_named(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="activations of width 12, expected m = 13"):
        runs.train_run(spec(m=13), pool, mask(tmp_path), tmp_path / "run")
    with pytest.raises(UserError, match="400 tokens, expected at least 401"):
        runs.train_run(spec(train_tokens=401), pool, mask(tmp_path), tmp_path / "run")
    with pytest.raises(UserError, match=r"mask\d\.json: mask \(family, m, n, d, seed\)"):
        mask(tmp_path)
        runs.train_run(spec(), pool, mask(tmp_path, seed=1), tmp_path / "run")
    with pytest.raises(UserError, match="a mask file is needed"):
        runs.train_run(spec(), pool, None, tmp_path / "run")
    assert not (tmp_path / "run").exists()
