"""The whole workflow on the embedded model, as small as it goes, in a checkout of a difficult name."""

import copy
import json
import shutil

import pytest
import yaml

from expander_sae.measurements import tables
from expander_sae.storage.files import sha256_file
from expander_sae.study.study import Study, load_config
from tests.workflow.planning import BEING_WRITTEN, ROOT, checkout, make, plan, snakemake
from tests.workflow.test_plan import COLLECTORS

CONFIG = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text(encoding="utf-8"))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smoke")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a checkout in which `make frontier` and then all the rest were made."""
    folder = checkout(tmp_path_factory.mktemp("smoke") / "{model}" / "My Proj (é)" / "O'Neil [1]")
    done = make(folder, "frontier", timeout=1500, CONFIG="configs/smoke.yaml", CORES="2")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert (folder / "results/frontier.pdf").is_file() and not (folder / "results/claims.json").exists()
    done = snakemake(folder, CONFIG, timeout=1500, source=folder)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert "left out: smollm2-135m-instruct, k=8: the dense run matched to d=7" in done.stdout + done.stderr
    return folder


def test_it_ends_with_the_figure_and_every_table(finished):
    assert (finished / "results/frontier.pdf").read_bytes().startswith(b"%PDF")
    assert (finished / "results/frontier.png").stat().st_size > 1000
    frame = tables.read_metrics(finished / "results/metrics.parquet")
    study = Study(load_config(CONFIG))
    measured = frame[(frame["inference"] == "omp") & (frame["metric"] == "relative_error")]
    assert len(measured) == len(study.runs)
    assert measured["value"].notna().all()
    assert {"ce_clean", "ce_zero"} <= set(frame[frame["support"] == "none"]["metric"])
    assert len(tables.read_documents(finished / "results/documents.parquet"))


def test_what_made_it_stands_beside_it(finished):
    record = json.loads((finished / "results/provenance.json").read_text())
    assert {"model", "corpus", "extraction", "pool", "mask", "training", "evaluation"} <= set(record["cost"])
    assert all(stage["seconds"] > 0 and stage["peak_mb"] > 0 for stage in record["cost"].values())
    assert record["versions"]["torch"] and record["config"]["grid"]["d"] == [7, 30]
    assert record["left_out"]


def test_nothing_is_left_to_do(finished):
    assert plan(finished, CONFIG, source=finished) == {}


def test_nothing_is_left_to_do_in_a_copy_whose_files_are_all_new(finished, tmp_path):
    """As of `cp -r`, or of rsync without times, also where an input is newer than what was made of it."""
    copied = tmp_path / "copy"
    shutil.copytree(finished, copied, copy_function=shutil.copy, ignore=BEING_WRITTEN)
    for shard in copied.rglob("*.parquet"):
        shard.touch()
    assert max(file.stat().st_size for file in copied.rglob("shards/*.parquet")) > 1e6
    assert plan(copied, CONFIG, source=copied) == {}
    shard = next(copied.rglob("shards/train-00000.parquet"))
    shard.write_bytes(shard.read_bytes() + b"more")
    assert plan(copied, CONFIG, source=copied)["pool"] == 1, "other content is no copy"


@pytest.mark.parametrize(("key", "values"), [("d", [7, 30, 100]), ("seeds", [0, 1, 2])])
def test_more_of_the_grid_extracts_nothing_again(finished, key, values):
    """Two masks more; their cells join jobs, which skip what is done. test_plan.py counts single jobs."""
    more = copy.deepcopy(CONFIG)
    more["grid"][key] = values
    counts = plan(finished, more, source=finished)
    assert counts["mask"] == 2 and counts.keys() >= {"evaluate", "analyse", *COLLECTORS}
    before_training = {"model", "tokens", "labels", "pool", "baseline", "extract_smollm2_135m_instruct"}
    assert not counts.keys() & before_training


def test_doing_the_last_steps_again_gives_the_same_bytes(finished):
    names = ("metrics.parquet", "documents.parquet", "frontier.pdf")
    before = {name: sha256_file(finished / "results" / name) for name in names}
    again = ("--forcerun", "evaluate", "collect", "frontier", "--quiet", "all")
    done = snakemake(finished, CONFIG, *again, source=finished)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: sha256_file(finished / "results" / name) for name in names} == before
