"""Shards that are not kept: they go when their pools are there, and are not made again for what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expander_sae.errors import UserError
from expander_sae.study.study import load_config
from tests.workflow.planning import plan, pretend_finished, snakemake

CONFIG: dict[str, Any] = {
    "models": [{"name": "smollm2-135m-instruct", "layers": [2]}],
    "tokens": {"train": 2048, "test": 512, "ce_sequences": 4, "shard": 1024},
    "grid": {"n": 1152, "d": [7], "k": 8, "seeds": [0]},
    "runs": [{"support": "expander"}],
    "compute": {"keep_shards": False},
}
SHARDS = Path("results/smollm2-135m-instruct/docstrings/layer2/shards")


def test_all_shards_go_and_pools_and_weights_stay(tmp_path: Path) -> None:
    done = snakemake(tmp_path, CONFIG, "--dry-run")
    said = [line for line in (done.stdout + done.stderr).splitlines() if "emove temporary output" in line]
    gone = {Path(line.split()[-1]) for line in said}
    assert gone == {
        SHARDS / f"{name}.parquet" for name in ("train-00000", "train-00001", "test-00000", "ce-00000")
    }


def test_a_finished_study_without_shards_has_nothing_to_do(tmp_path: Path) -> None:
    pretend_finished(tmp_path, CONFIG)
    assert not (tmp_path / SHARDS).exists()
    assert plan(tmp_path, CONFIG) == {}
    more = CONFIG | {"grid": CONFIG["grid"] | {"seeds": [0, 1]}}
    counts = plan(tmp_path, more)
    assert counts["train"] == 1 and not {name for name in counts if name.startswith(("extract", "pool"))}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"training": {"stream": 4096}}, "found false with training.stream above 0"),
        ({"tokens": CONFIG["tokens"] | {"address": "s3://bucket/study"}}, "found false with tokens.address"),
    ],
)
def test_shards_that_are_read_later_or_lie_elsewhere_are_kept(block: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"compute.keep_shards: {message}"):
        load_config(CONFIG | block)
