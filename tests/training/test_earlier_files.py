"""Files that were written before training had one session: the same are still written, and still read."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from expander_sae.masks.recipe import MaskRecipe, write_mask
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import Run
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.run_folder import RunFiles, train_runs
from expander_sae.training.trainer import Trainer
from tests.training import small_data

DATA = Path(__file__).with_name("data")
SETTINGS: dict[str, Any] = {"batch_size": 16, "resample_every": 20}
TRAINER_FINGERPRINT = "5414bafd59d53ab0c8f2f2fcf68de4cacc22cc8975a9a83cf0060f24d2035e5e"


def train(folder: Path) -> Path:
    """Train the run of data/run.json into `folder`, which may hold a checkpoint."""
    mask = folder.with_name("mask.json")
    write_mask(asdict(MaskRecipe("expander", small_data.M, 24, 3, 0)), mask)
    shape = ("expander", "tied", small_data.M, 24, 3, 3)
    recipe = replace(RECIPES["standard"], **SETTINGS)
    run = Run("tiny", "text", 1, "standard", *shape, small_data.TOKENS, 60, 0, recipe)
    pool = small_data.write_pool(folder.parent)
    assert train_runs([RunFiles(run, folder, mask)], pool, backend="torch", checkpoint_every=10)
    return folder / "weights.safetensors"


def trainer(checkpoint: Path | None) -> Trainer:
    """A trainer of the same run."""
    activations = torch.from_numpy(small_data.activations())
    return Trainer(
        activations,
        n=24,
        k=3,
        d=3,
        recipe="standard",
        device="cpu",
        backend="torch",
        checkpoint=checkpoint,
        log_every=5,
        **SETTINGS,
    )


def assert_equal_weights(found: SparseAutoencoder, expected: SparseAutoencoder) -> None:
    """Equal but for what another machine's arithmetic may have done before the checkpoint."""
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), parameter, rtol=1e-4, atol=1e-6)


def test_a_record_is_written_as_it_was(tmp_path: Path) -> None:
    weights = train(tmp_path / "run")
    then, now = ((folder / "run.json").read_text() for folder in (DATA, tmp_path / "run"))
    spec = then[then.index('  "spec"') : then.index("  },\n", then.index('"recipe_settings"')) + 5]
    assert spec in now, "to the byte"
    expected, found = json.loads(then), json.loads(now)
    assert found.keys() == expected.keys()
    of_a_machine = {"torch", "log_sha256", "seal"}
    for key in expected.keys() - of_a_machine:
        assert found[key] == (
            pytest.approx(expected[key]) if key in ("scale", "norm_limit") else expected[key]
        )
    about = load_tensors(weights)[1]["about"]
    assert list(about) == ["fingerprint", "norm_limit", "scale", "spec"]
    assert all(about[key] == found[key] for key in about)


def test_a_runs_earlier_checkpoint_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SparseAutoencoder.load(train(tmp_path / "whole"))
    (tmp_path / "run").mkdir()
    shutil.copy(DATA / "checkpoint.safetensors", tmp_path / "run")
    saved: list[int] = []
    monkeypatch.setattr(Checkpoint, "save", lambda _, state: saved.append(state.step))
    found = SparseAutoencoder.load(train(tmp_path / "run"))
    assert saved == [40, 50], "step 35 is where it goes on"
    assert_equal_weights(found, whole)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_trainers_earlier_checkpoint_goes_on(tmp_path: Path) -> None:
    tensors, _ = load_tensors(DATA / "checkpoint.safetensors")
    save_tensors(tensors, tmp_path / "checkpoint", {"fingerprint": TRAINER_FINGERPRINT})
    resumed = trainer(tmp_path / "checkpoint")
    found = resumed.fit(60)
    assert [row["step"] for row in resumed.log] == [40, 45, 50, 55, 60], "step 35 is where it goes on"
    assert_equal_weights(found, trainer(None).fit(60))
    stored, about = load_tensors(tmp_path / "checkpoint")
    assert about == {"fingerprint": TRAINER_FINGERPRINT} and stored.keys() == tensors.keys()
