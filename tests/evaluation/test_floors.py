"""Floors of a tiny language model: measured like every run, and exemplars made again from their ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.activations.language_model import LanguageModel
from expander_sae.evaluation.runs import METRICS, evaluate_run
from expander_sae.measurements import tables
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.safetensors_files import load_tensors
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import Evaluation, Run
from expander_sae.training.run_folder import WEIGHTS, RunFiles, train_runs
from tests.evaluation.test_runs import LAYER, SEQUENCES, columns, world
from tests.tiny_models import WIDTH

__all__ = ["world"]

SHAPES: dict[str, dict[str, int]] = {
    "pca": {"n": 8, "d": WIDTH},
    "random": {"n": 32, "d": 4},
    "exemplars": {"n": 20, "d": WIDTH},
}


def fitted(world: Path, folder: Path, support: str) -> Run:
    told: dict[str, Any] = columns(support=support, steps=0, **SHAPES[support])
    run = Run(**told, recipe_settings=RECIPES["standard"])
    train_runs([RunFiles(run, folder)], world / "train.json")
    return run


@pytest.mark.parametrize("support", SHAPES)
def test_a_floor_has_all_the_rows_of_a_run(world: Path, tmp_path: Path, support: str) -> None:
    run = fitted(world, tmp_path, support)
    evaluate_run(
        tmp_path, Evaluation(("omp",), ("omp",), 30, SEQUENCES), test_pool=world / "test.json",
        ce_pool=world / "ce.json", model_file=world / "model.json", baseline=world / "baseline.parquet",
    )  # fmt: skip
    frame = tables.read_metrics(tmp_path / METRICS)
    assert set(frame["support"]) == {support} and set(frame["steps"]) == {0}
    found = {(row.inference, row.metric): row.value for row in frame.itertuples()}
    assert {("omp", "relative_error"), ("omp", "ce_recovered"), ("none", "decoder_values")} <= found.keys()
    assert found["omp", "diverged"] == 0 and found["omp", "relative_error"] < 1
    assert (("none", "storage_ids_bytes") in found) == (run.support == "exemplars")


@pytest.mark.parametrize("support", ["hybrid", "spectral4", "grown"])
def test_decoders_of_other_kinds_have_all_the_rows_too(world: Path, tmp_path: Path, support: str) -> None:
    told: dict[str, Any] = columns(support=support, steps=12, n=40, d=4)
    run = Run(**told, recipe_settings=replace(RECIPES["tuned"], grow_every=3))
    assert train_runs([RunFiles(run, tmp_path)], world / "train.json")
    assert not train_runs([RunFiles(run, tmp_path)], world / "train.json"), "it is finished"
    evaluate_run(
        tmp_path, Evaluation(("encoder", "omp"), ("omp",), 30, SEQUENCES), test_pool=world / "test.json",
        ce_pool=world / "ce.json", model_file=world / "model.json", baseline=world / "baseline.parquet",
    )  # fmt: skip
    frame = tables.read_metrics(tmp_path / METRICS)
    found = {(row.inference, row.metric): row.value for row in frame.itertuples()}
    assert found["omp", "relative_error"] < found["encoder", "relative_error"]
    assert ("omp", "ce_recovered") in found
    assert (("none", "storage_shared_bytes") in found) == (support == "spectral4")


def test_exemplars_are_made_again_from_their_ids_by_the_language_model(world: Path, tmp_path: Path) -> None:
    fitted(world, tmp_path, "exemplars")
    stored, _ = load_tensors(tmp_path / WEIGHTS)
    model, sae = LanguageModel.load(world / "model.json"), SparseAutoencoder.load(tmp_path / WEIGHTS)
    ids, lengths = stored["token_ids"].long(), stored["document_lengths"].tolist()
    documents = [model.residual(part[None], [LAYER])[LAYER][0] for part in ids.split(lengths)]
    rows = torch.cat(documents).double().numpy()
    kept = rows[np.linalg.norm(rows, axis=1) <= sae.norm_limit] - sae.b_dec.detach().double().numpy()
    assert len(kept) == sae.n
    expected = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    np.testing.assert_allclose(stored["values"].numpy(), expected, atol=1e-5)
