"""Imported runs: the files of a trained one, and the same measurements of the same autoencoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import expander_sae
from expander_sae.errors import UserError
from expander_sae.evaluation.analysis import analyse_run
from expander_sae.evaluation.runs import METRICS, evaluate_run
from expander_sae.interop import saelens, sparsify
from expander_sae.interop.imported import ImportedFiles, import_runs
from expander_sae.masks.recipe import MaskRecipe, write_mask
from expander_sae.measurements import tables
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.storage.files import sha256_file
from expander_sae.study.imported import read
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import RUN_COLUMNS, Analysis, Evaluation, Run
from expander_sae.training.run_folder import LOG, RECORD, WEIGHTS, RunFiles, train_runs
from tests.evaluation.test_runs import SEQUENCES, columns, world
from tests.tiny_models import WIDTH

__all__ = ["world"]

ASKED = Evaluation(("encoder", "omp"), ("encoder", "omp"), 30, SEQUENCES)
ANALYSED = Analysis(("features", "pursuits", "certificates"), 30, ("niht",), 10)


def imported(world: Path, place: Path, folder: Path) -> Run:
    """The run of what lies at a place, imported into a folder."""
    found = read("theirs", str(place))
    sizes = {name: getattr(found.sizes, name) for name in ("n", "d", "k", "encoder", "precision", "codes")}
    told: dict[str, Any] = columns(support=found.support, steps=0, **sizes)
    run = Run(**told, recipe_settings=RECIPES["standard"], imported=found)
    files = ImportedFiles(run, folder, found.path, found.sha256)
    assert import_runs([files], world / "train.json")
    assert not import_runs([files], world / "train.json"), "it is there"
    return run


def measured(world: Path, folder: Path) -> dict[tuple[str, str, str], float]:
    """(inference, split, metric) → value of all that a study measures of a run."""
    evaluate_run(
        folder, ASKED, test_pool=world / "test.json", ce_pool=world / "ce.json",
        model_file=world / "model.json", baseline=world / "baseline.parquet",
    )  # fmt: skip
    analyse_run(folder, ANALYSED, world / "test.json", folder / "analysis.parquet")
    frames = [tables.read_metrics(folder / name) for name in (METRICS, "analysis.parquet")]
    rows = pd.concat(frames)
    assert len(rows[list(RUN_COLUMNS)].drop_duplicates()) == 1
    keys = zip(rows["inference"], rows["split"], rows["metric"], strict=True)
    return dict(zip(keys, rows["value"], strict=True))


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained on the same pool."""
    folder = tmp_path_factory.mktemp("trained")
    told: dict[str, Any] = columns(steps=30)
    run = Run(**told, recipe_settings=replace(RECIPES["standard"], learning_rate=0.01))
    write_mask(asdict(MaskRecipe("expander", WIDTH, 64, 4, 0)), folder / "mask.json")
    assert train_runs([RunFiles(run, folder, folder / "mask.json")], world / "train.json")
    return folder


def test_what_the_study_trained_is_measured_alike_when_it_is_imported(
    world: Path, trained: Path, tmp_path: Path
) -> None:
    own = measured(world, trained)
    sae = expander_sae.load(trained)
    saelens.export(sae, tmp_path / "saelens", say=False)
    saelens.export(sae, tmp_path / "compact", compact=True, say=False)
    sparsify.export(sae, tmp_path / "sparsify", say=False)
    for place in (trained, tmp_path / "saelens", tmp_path / "compact", tmp_path / "sparsify"):
        folder = tmp_path / "imported" / place.name
        run = imported(world, place, folder)
        found = measured(world, folder)
        assert found == pytest.approx(own, rel=1e-6, abs=1e-6)
        frame = tables.read_metrics(folder / METRICS)
        assert set(frame["support"]) == {run.support} and set(frame["steps"]) == {0}
        assert expander_sae.load(folder).norm_limit == sae.norm_limit < float("inf")


def test_thresholds_have_one_number_of_features_for_every_pursuit(world: Path, tmp_path: Path) -> None:
    jump = SparseAutoencoder(WIDTH, 48, 48, None, "independent", "torch")
    jump.initialise(torch_generator(2, "jump"))
    jump.thresholds = torch.full((48,), 2.0)
    saelens.export(jump, tmp_path / "jump", say=False)
    run = imported(world, tmp_path / "jump", tmp_path / "run")
    found = measured(world, tmp_path / "run")
    assert (run.n, run.k) == (48, 48)
    active = found["encoder", "test", "l0"]
    assert 1 < active < WIDTH and found["omp", "test", "l0"] == pytest.approx(round(active), abs=0.5)
    assert found["omp", "test", "relative_error"] < found["encoder", "test", "relative_error"]
    assert {("omp", "ce", "ce_recovered"), ("niht", "pursuit", "relative_error")} <= found.keys()
    assert ("none", "none", "code_bits") not in found, "no number says it"


def test_the_same_files_give_the_same_bytes_wherever_they_lie(
    world: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    imported(world, trained, tmp_path / "one")
    imported(world, tmp_path / "copy", tmp_path / "other")
    for name in (WEIGHTS, LOG):
        assert sha256_file(tmp_path / "one" / name) == sha256_file(tmp_path / "other" / name)
    assert (tmp_path / "one" / RECORD).is_file()


@pytest.mark.parametrize("change", [lambda place: place.unlink(), lambda place: place.write_bytes(b"other")])
def test_what_changed_since_planning_is_refused(
    world: Path, trained: Path, tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    place = tmp_path / "weights.safetensors"
    shutil.copy(trained / WEIGHTS, place)
    run = imported(world, place, tmp_path / "first")
    change(place)
    assert run.imported is not None
    files = ImportedFiles(run, tmp_path / "second", run.imported.path, run.imported.sha256)
    with pytest.raises(UserError, match="changed since the study was planned, expected it as it was then"):
        import_runs([files], world / "train.json")


def test_a_configuration_that_says_another_k_than_the_tensors_is_refused(
    world: Path, trained: Path, tmp_path: Path
) -> None:
    place = trained / WEIGHTS
    run = imported(world, place, tmp_path / "first")
    assert run.imported is not None
    wrong = replace(run, k=run.k + 1)
    files = ImportedFiles(wrong, tmp_path / "second", str(place), run.imported.sha256)
    with pytest.raises(UserError, match="k = 3, expected 4, which its configuration says"):
        import_runs([files], world / "train.json")


def test_the_norm_limit_is_the_studys(world: Path, trained: Path, tmp_path: Path) -> None:
    """Without one the autoencoder would be measured on other tokens than the runs beside it."""
    sae = expander_sae.load(trained)
    limit = sae.norm_limit
    sae.about = {}
    saelens.export(sae, tmp_path / "bare", say=False)
    imported(world, tmp_path / "bare", tmp_path / "run")
    assert expander_sae.load(tmp_path / "run").norm_limit == limit
