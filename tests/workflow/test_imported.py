"""A study with a run that it trained and the same autoencoder from elsewhere, by the scripts of the jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from expander_sae.api import load
from expander_sae.interop import saelens
from expander_sae.masks.recipe import write_mask
from expander_sae.measurements import tables
from expander_sae.storage.files import canonical_json
from expander_sae.study import targets
from expander_sae.study.kept_tables import RUN_TABLES
from expander_sae.study.study import Study, load_config
from expander_sae.training.run_folder import RunFiles, train_runs
from tests.evaluation.test_runs import LAYER, SEQUENCES, world
from tests.tiny_models import DEPTH, WIDTH
from tests.workflow.planning import ROOT

__all__ = ["world"]


def config_of(world: Path, *blocks: dict[str, Any]) -> dict[str, Any]:
    """Of a study on the tiny model of `world`."""
    model = {"name": "tiny", "source": "folder", "location": str(world / "weights"), "width": WIDTH}
    return {
        "models": [{**model, "depth": DEPTH, "layers": [LAYER]}],
        "tokens": {"train": 40, "test": 30, "ce_sequences": SEQUENCES, "shard": 64},
        "recipe": "standard",
        "training": {"steps": 20, "learning_rate": 0.01},
        "grid": {"n": 64, "d": 4, "k": 3, "precision": ["int8"]},
        "runs": [{"support": "expander", "precision": "float32"}, *blocks],
        "compute": {"device": "cpu", "backend": "torch", "cells_per_job": 4},
    }


def study(world: Path, *blocks: dict[str, Any]) -> Study:
    return Study(load_config(config_of(world, *blocks)))


def script(folder: Path, name: str, **options: Any) -> None:
    """Run a job's script as its rule does."""
    given = {"log": "results/logs/job.log", **options}
    words = []
    for key, value in given.items():
        words += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EXPANDER_SAE_BACKEND": "torch"}
    command = [sys.executable, str(ROOT / "workflow" / "scripts" / f"{name}.py"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_both_end_in_one_table_with_the_same_numbers(world: Path, tmp_path: Path) -> None:
    own = study(world).runs[0]
    assert own.mask is not None
    (tmp_path / own.mask).parent.mkdir(parents=True)
    write_mask({"family": "expander", "m": WIDTH, "n": 64, "d": 4, "seed": 0}, tmp_path / own.mask)
    assert train_runs([RunFiles(own, tmp_path / own.path, tmp_path / own.mask)], world / "train.json")
    saelens.export(load(tmp_path / own.path), tmp_path / "theirs", say=False)

    planned = study(world, {"support": "imported", "path": str(tmp_path / "theirs"), "name": "theirs"})
    imported = planned.runs[1]
    (job,) = [one for one in planned.trainings if one.runs[0].is_imported]
    script(tmp_path, "train", spec=canonical_json(targets.training_spec(job)), pool=world / "train.json")
    (task,) = planned.evaluations.values()
    assert set(task.spec) == {own.path, imported.path}, "one job measures both"
    pools = {name: world / f"{name}.json" for name in ("model", "test", "ce")}
    out = {"metrics": "metrics.parquet", "documents": "documents.parquet"}
    spec = canonical_json(task.spec)
    script(tmp_path, "evaluate", spec=spec, **pools, baseline=world / "baseline.parquet", **out)
    table = tables.read_metrics(tmp_path / "metrics.parquet")
    found = [
        {(row.inference, row.split, row.metric): row.value for row in rows.itertuples()}
        for _, rows in table.groupby("support", sort=False)
    ]
    assert set(table["support"]) == {own.support, imported.support}
    assert found[0] == pytest.approx(found[1], rel=1e-6, abs=1e-6)
    assert {"encoder", "omp", "none"} == {inference for inference, _, _ in found[0]}
    assert ("omp", "ce", "ce_recovered") in found[0] and ("none", "none", "storage_total_bytes") in found[0]
    for run in (own, imported):  # one trained on a device, one on none
        rows = [f"rows/{run.seed}-{run.support}.{name}.parquet" for name in RUN_TABLES]
        inputs = {"metrics": f"{run.path}/metrics.parquet", "documents": f"{run.path}/documents.parquet"}
        script(tmp_path, "record", run=run.path, history=f"{run.path}/training.csv", out=rows, **inputs)
        assert set(tables.read_metrics(tmp_path / rows[0])["support"]) == {run.support}
