"""A small study on a real SLURM of one node: as on this machine alone, and after a job was lost."""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from expander_sae.storage.files import sha256_file
from tests.cluster.one_node import OneNode, why_not
from tests.tiny_models import DEPTH, WIDTH, save_tiny_model

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "snakemake_executor_plugin_slurm"
ODD = "My Proj (é)/O'Neil [1]"
"""A folder whose name shells and patterns read otherwise: the study runs in one."""
_MINUTES = 15  # until a workflow that does not end is given up

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    reason = why_not()
    if reason is None and importlib.util.find_spec(PLUGIN) is None:
        reason = "the SLURM executor of Snakemake is not installed: make test-slurm"
    if reason is not None:
        pytest.skip(reason)
    with OneNode(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A model with random weights, words drawn at random, and trainings long enough to be caught."""
    folder = tmp_path_factory.mktemp("inputs") / ODD
    folder.mkdir(parents=True)
    save_tiny_model(folder / "model")
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghij", k=5)) for _ in range(200)]
    for document in range(60):
        (folder / f"{document:02d}.txt").write_text(" ".join(generator.choices(words, k=16)))
    model = {"name": "tiny", "source": "folder", "location": str(folder / "model")}
    return {
        "models": [{**model, "width": WIDTH, "depth": DEPTH, "layers": [1]}],
        "corpus": {"name": "words", "source": "files", "location": f"{folder}/*.txt", "context": 64},
        "tokens": {"train": 512, "test": 128, "ce_sequences": 2, "shard": 512},
        "training": {"steps": 4000},
        "grid": {"n": 64, "d": [4], "k": [4], "seeds": [0]},
        "runs": [{"support": "expander"}],
        "compute": {"device": "cpu", "backend": "torch"},
    }


def command(folder, config, profile):
    """Snakemake's command line for the tables of a study in `folder`."""
    folder.mkdir(parents=True)
    path = folder / "config-of-the-test.yaml"
    path.write_text(yaml.safe_dump(config))
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
        *("--directory", str(folder), "--configfile", str(path)),
        *("--workflow-profile", str(ROOT / "profiles" / profile)),
        *(("--cores", "2") if profile == "default" else ()),
        *("--", "results/metrics.parquet"),
    ]


@pytest.fixture(scope="module")
def local(config, tmp_path_factory):
    """The folder of the study as it comes out without a cluster."""
    folder = tmp_path_factory.mktemp("local") / "run"
    run = subprocess.run(
        command(folder, config, "default"),
        capture_output=True,
        text=True,
        timeout=60 * _MINUTES,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return folder


def take_over(local, folder):
    """Copy what is made before training of the study that was run locally, but of the split `ce`.

    Its extraction and its pool are then jobs on the cluster, as the mask, training and measurements are. A
    job there starts Snakemake twice and torch once, and the same rules for other splits show nothing new.
    """
    left_out = shutil.ignore_patterns("ce-*", "ce.*", "baseline", "tuned_t*")
    for record in (local / "results").glob("*/model.json"):
        model = record.parent
        shutil.copytree(model, folder / model.relative_to(local), ignore=left_out)
    assert not any(folder.rglob("ce*")) and any(folder.rglob("pool/train.f32"))


def test_a_cancelled_and_a_requeued_job_come_back_and_nothing_else_changes(cluster, config, local, tmp_path):
    """Training is cancelled after its first checkpoint and the resubmitted job is sent back to the queue,
    as preemption does; the tables are those of the undisturbed local run, byte for byte."""
    folder = tmp_path / ODD
    asked = command(folder, config, "slurm-ci")
    take_over(local, folder)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    log = tmp_path / "snakemake.log"
    with open(log, "wb") as output:
        workflow = subprocess.Popen(
            asked,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**cluster.environment, "PYTHONPATH": path},
        )
        try:
            first = running_training(cluster, workflow, without=set())
            wait_for_checkpoint(folder, workflow)
            cluster.ask("scancel", first)
            second = running_training(cluster, workflow, without={first})
            wait_for_output(folder, workflow, second)
            cluster.ask("scontrol", "requeue", second)
            wait_until_pending(cluster, workflow, second)
            # SLURM would let it wait for two minutes, so that it never starts in the second in which it
            # was sent back: the node refuses a job as killed whose new credential is not newer than that.
            cluster.ask("scontrol", "update", f"JobId={second}", "StartTime=now+5")
            assert workflow.wait(timeout=60 * _MINUTES) == 0, report(log, cluster)
        finally:
            workflow.terminate()
            workflow.wait()
    jobs = cluster.jobs()
    trainings = {job: state for job, (state, comment) in jobs.items() if "rule_train_" in comment}
    assert trainings == {first: "CANCELLED", second: "COMPLETED"}, report(log, cluster)
    # Masks share a job, which is called after its group.
    assert {"extract", "pool", "masks", "baseline", "evaluate"} <= kinds(jobs), report(log, cluster)
    shown = cluster.ask("scontrol", "show", "job", second)
    assert "Restarts=1" in shown and "MinMemoryNode=" in shown
    for name in ("metrics.parquet", "documents.parquet"):
        assert sha256_file(folder / "results" / name) == sha256_file(local / "results" / name), name


def kinds(jobs):
    """The first words of the rules that ran as jobs, such as ``rule_pool_wildcards_…``."""
    return {comment.removeprefix("rule_").split("_")[0] for _, comment in jobs.values()}


def running_training(cluster, workflow, without):
    """Id of a training job that runs, other than these."""
    for _ in ticks(workflow):
        for job, (state, comment) in cluster.jobs().items():
            if state == "RUNNING" and "rule_train_" in comment and job not in without:
                return job
    raise AssertionError("the workflow ended before a training job ran")


def wait_for_checkpoint(folder, workflow):
    for _ in ticks(workflow):
        if any(folder.glob("results/**/checkpoint*")):
            return
    raise AssertionError("the workflow ended before a training had a checkpoint")


def wait_for_output(folder, workflow, job):
    """Until the job has written something: SLURM calls it running before the node has started it."""
    for _ in ticks(workflow):
        if any(log.stat().st_size for log in folder.glob(f".snakemake/slurm_logs/**/{job}.log")):
            return
    raise AssertionError("the workflow ended before the job wrote anything")


def wait_until_pending(cluster, workflow, job):
    """Until its processes are gone and it is back in the queue."""
    for _ in ticks(workflow):
        if cluster.jobs()[job][0] == "PENDING":
            return
    raise AssertionError("the workflow ended before the job was back in the queue")


def ticks(workflow):
    """Pauses, for as long as the workflow runs."""
    deadline = time.monotonic() + 60 * _MINUTES
    while workflow.poll() is None and time.monotonic() < deadline:
        yield None
        time.sleep(0.1)


def report(log, cluster):
    return log.read_text(errors="replace")[-6000:] + cluster.logs()
