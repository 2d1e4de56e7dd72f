"""Numbers that go wrong: found where they arise, told in the table, never a silent NaN."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from expander_sae.activations.pool import build_pool
from expander_sae.activations.shards import Rows, Shard, write_shard
from expander_sae.errors import UserError
from expander_sae.evaluation.reconstruction import reconstruct
from expander_sae.masks.recipe import MaskRecipe, write_mask
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.inference import INFERENCES
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import Run
from expander_sae.training.run_folder import RunFiles, train_runs

M, N, D, K, TOKENS = 12, 48, 4, 3, 200


def rows(values: np.ndarray) -> Rows:
    part = np.arange(len(values))
    return Rows((part // 8).astype("i4"), (part % 8).astype("i2"), part.astype("i4"), values.astype("f4"))


def activations(scale: float = 1.0) -> np.ndarray:
    return scale * torch.randn(TOKENS, M, generator=torch_generator(0, "numerics")).numpy()


def train(folder: Path, values: np.ndarray, **changes: Any) -> dict[str, Any]:
    """run.json of a short run on these activations."""
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": 0}
    about |= {"shard_tokens": len(values), "lineage": lineage("extraction")}
    write_shard(folder / "shard.parquet", rows(values), about)
    build_pool([folder / "shard.parquet"], "train", folder / "train.f32", folder / "train.json", {})
    write_mask({"family": "expander", "m": M, "n": N, "d": D, "seed": 0}, folder / "mask.json")
    recipe = replace(RECIPES["standard"], batch_size=16, **changes)
    shape = ("expander", "tied", M, N, D, K)
    run = Run("tiny", "text", 1, "standard", *shape, len(values), 60, 0, recipe)
    files = RunFiles(run, folder / "run", folder / "mask.json")
    train_runs([files], folder / "train.json", backend="torch")
    return json.loads((folder / "run" / "run.json").read_text())


def test_a_loss_that_overflows_ends_the_run_and_is_recorded(tmp_path: Path) -> None:
    record = train(tmp_path, activations(1e25), scale_to_sqrt_m=False)
    assert record["finite"] is False
    last = (tmp_path / "run" / "training.csv").read_text().splitlines()[-1].split(",")
    assert int(last[0]) < 60 and not math.isfinite(float(last[1]))


def test_a_run_that_diverges_is_told_by_its_error(tmp_path: Path) -> None:
    assert train(tmp_path, activations(), learning_rate=1e4, learning_rate_end=1e4)["finite"] in (True, False)
    autoencoder = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors", backend="torch")
    _, found = reconstruct(autoencoder, activations().astype("f4"), INFERENCES["encoder"])
    assert not found.summary()["relative_error"] <= 1, "which is what the table calls diverged"


def test_massive_activations_are_passed_through(tmp_path: Path) -> None:
    values = activations()
    values[::50] *= 1e6
    record = train(tmp_path, values)
    assert record["finite"] and record["kept_tokens"] == TOKENS - len(values[::50])


def test_constant_activations_train_and_explain_no_variance(tmp_path: Path) -> None:
    values = np.tile(activations()[:1], (TOKENS, 1))
    assert train(tmp_path, values)["finite"]
    autoencoder = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors", backend="torch")
    summary = reconstruct(autoencoder, values.astype("f4"), INFERENCES["encoder"])[1].summary()
    assert summary.pop("explained_variance") != 1 and all(map(math.isfinite, summary.values()))


def test_zero_activations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.json: every activation is zero"):
        train(tmp_path, np.zeros((TOKENS, M)))


def test_a_dead_dictionary_is_all_dead_and_finite() -> None:
    autoencoder = SparseAutoencoder(M, N, K, MaskRecipe("expander", M, N, D, 0).generate(), backend="torch")
    summary = reconstruct(autoencoder, activations().astype("f4"), INFERENCES["encoder"])[1].summary()
    assert summary["dead_fraction"] == 1 and summary["l0"] == 0
    assert all(map(math.isfinite, summary.values()))


def test_columns_without_a_norm_stay_zero_and_have_finite_gradients() -> None:
    autoencoder = SparseAutoencoder(M, N, K, MaskRecipe("expander", M, N, D, 0).generate(), backend="torch")
    autoencoder.initialise(torch_generator(0, "initialisation"))
    with torch.no_grad():
        autoencoder.values[::2] = 0
    batch = torch.from_numpy(activations().astype("f4"))
    (autoencoder(batch)[0] - batch).square().sum().backward()
    norms = autoencoder.dictionary().norms()
    assert torch.isfinite(norms).all() and not norms[::2].any()
    assert all(torch.isfinite(parameter.grad).all() for parameter in autoencoder.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_shard_holds_what_is_not_finite(tmp_path: Path, bad: float) -> None:
    values = activations()
    values[7, 3] = bad
    with pytest.raises(UserError, match=r"a\.parquet: found activations that are not finite"):
        write_shard(tmp_path / "a.parquet", rows(values), {})
    assert not list(tmp_path.iterdir())


def test_overflow_in_conversion_to_float32_is_found(tmp_path: Path) -> None:
    values = torch.full((4, M), 3e38, dtype=torch.bfloat16).float().numpy()
    with np.errstate(over="ignore"), pytest.raises(UserError, match="not finite"):
        write_shard(tmp_path / "a.parquet", rows(values * np.float32(10)), {})


def test_a_shard_of_another_program_with_infinities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_shard(path, rows(activations()), {"layer": 1})
    table = pq.read_table(path)
    flat = table["activation"].combine_chunks().flatten().to_numpy().copy()
    flat[5] = math.inf
    array = type(table["activation"].chunk(0)).from_arrays(flat, M)
    metadata = {key: value for key, value in table.schema.metadata.items() if key != b"seal"}
    pq.write_table(table.set_column(3, "activation", array).replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match=r"a\.parquet: found activations that are not finite"):
        list(Shard(path).row_groups())
