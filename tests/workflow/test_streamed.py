"""A study that streams: its plan has no training pool, and its jobs make none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from expander_sae.errors import UserError
from expander_sae.evaluation.cross_entropy import write_baseline
from expander_sae.masks.recipe import write_mask
from expander_sae.measurements import tables
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import canonical_json
from expander_sae.study.study import Study, load_config
from expander_sae.training.run_folder import RunFiles, train_runs
from tests.evaluation.test_runs import SEQUENCES, world
from tests.tiny_models import WIDTH
from tests.workflow.planning import plan
from tests.workflow.test_imported import config_of, script

__all__ = ["world"]

CONFIG = {
    "models": [{"name": "smollm2-135m-instruct", "layers": [2]}],
    "tokens": {"train": 2048, "test": 512, "ce_sequences": 4, "shard": 1024},
    "training": {"stream": 4096},
    "grid": {"n": 1152, "d": [7], "k": 8},
    "runs": [{"support": "expander"}],
    "compute": {"shards_per_job": 2},
}


def test_the_plan_lists_the_shards_of_train_and_joins_none(tmp_path: Path) -> None:
    counts = plan(tmp_path, CONFIG)
    assert (counts["shard_list"], counts["pool"]) == (1, 2)
    extracted = {name: count for name, count in counts.items() if name.startswith("extract_")}
    prefix = "extract_smollm2_135m_instruct_"
    assert extracted == {f"{prefix}train_0": 1, f"{prefix}test_0": 1, f"{prefix}ce_0": 1}, (
        "of two shards each"
    )
    study = Study(load_config(CONFIG))
    (run,) = study.runs
    assert run.recipe.startswith("tuned-") and run.recipe_settings.stream == 4096
    assert run.path != Study(load_config(CONFIG | {"training": {}})).runs[0].path


def test_its_runs_and_the_model_itself_are_measured_by_the_shards(world: Path, tmp_path: Path) -> None:
    config = config_of(world)
    config["training"] |= {"stream": 32}
    study = Study(load_config(config))
    (run,) = study.runs
    (tmp_path / "shards").mkdir()
    (tmp_path / "pool").mkdir()
    (tmp_path / "shards" / "train-00000.parquet").symlink_to(world / "train-00000.parquet")
    listed = tmp_path / "pool" / "train.shards.json"
    spec = study.pool_spec(run.model, run.layer, "train")
    script(tmp_path, "shard_list", spec=canonical_json(spec), shards=tmp_path / "shards", out=listed)
    assert run.mask is not None
    (tmp_path / run.mask).parent.mkdir(parents=True)
    write_mask({"family": "expander", "m": WIDTH, "n": 64, "d": 4, "seed": 0}, tmp_path / run.mask)
    train_runs([RunFiles(run, tmp_path / run.path, tmp_path / run.mask)], listed)
    weights = SparseAutoencoder.load(tmp_path / run.path / "weights.safetensors")
    assert weights.about["spec"]["recipe_settings"]["stream"] == 32
    found = {}
    for name, recipe, pool in (
        ("streamed", run.recipe_settings, listed),
        ("pooled", replace(run.recipe_settings, stream=0), world / "train.json"),
    ):
        out = {f"out_{kind}": tmp_path / f"{name}-{kind}.parquet" for kind in ("metrics", "documents")}
        files = {"model_file": world / "model.json", "ce_pool": world / "ce.json", "train_pool": pool}
        write_baseline(replace(run.unaided, recipe_settings=recipe), SEQUENCES, **files, **out)
        found[name] = tables.read_metrics(out["out_metrics"])["value"].tolist()
    assert found["streamed"] == found["pooled"], "norm limit and mean are those of the same tokens"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"support": "pca"}, "training.stream: found above 0 with support pca"),
        (
            {"support": "expander", "train_cross_entropy": True},
            "train_cross_entropy: found true with training",
        ),
    ],
)
def test_what_needs_a_pool_is_refused_while_planning(block: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(CONFIG | {"runs": [block]})
