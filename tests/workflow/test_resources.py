"""What jobs ask for, and that no two local jobs share the GPU."""

import importlib
import re
import subprocess
import sys

import pytest

from tests.workflow.planning import ROOT, snakemake
from tests.workflow.test_plan import CONFIG

# Each job waits for the other to be there too, and tells when it is.
RENDEZVOUS = """
rule all:
    input: "a.done", "b.done"

rule job:
    output: "{name}.done"
    resources: gpu=1
    params: other=lambda w: {"a": "b", "b": "a"}[w.name], patience=config["patience"]
    shell:
        '''
        touch {wildcards.name}.here
        for i in $(seq {params.patience}); do
            if [ -e {params.other}.here ]; then touch together; fi
            if [ -e together ]; then break; fi
            sleep 0.05
        done
        rm {wildcards.name}.here
        touch {output}
        '''
"""


def together(folder, patience, *profile):
    """Whether two jobs that ask for the GPU ran at once on two cores."""
    folder.mkdir()
    (folder / "Snakefile").write_text(RENDEZVOUS)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "2",
        *profile,
        "--config",
        f"patience={patience}",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (folder / "a.done").exists() and (folder / "b.done").exists()
    return (folder / "together").exists()


def test_one_gpu_is_never_given_to_two_local_jobs(tmp_path):
    profile = ("--workflow-profile", str(ROOT / "profiles/default"))
    assert together(tmp_path / "without", 400), "without the profile nothing keeps them apart"
    assert not together(tmp_path / "with", 10, *profile)
    assert not together(tmp_path / "by make", 10, "--resources", "gpu=1", "mem_mb=1000")


def test_every_job_that_computes_asks_for_the_gpu_and_for_memory_and_time(tmp_path):
    config = {**CONFIG, "compute": {"device": "cuda"}}
    done = snakemake(tmp_path, config, "--dry-run")
    assert done.returncode == 0, done.stderr
    asked = {}
    text = done.stdout + done.stderr
    for rule, resources in re.findall(r"^rule (\w+):.*?resources: ([^\n]*)", text, re.M | re.S):
        asked[rule] = dict(part.split("=", 1) for part in resources.split(", "))
    training = {rule for rule in asked if rule.startswith("train_")}
    on_gpu = {"extract_smollm2_135m_instruct", "baseline", "evaluate"} | training
    assert len(training) == 1, "one job a pool trains all of its runs"
    assert {rule for rule, found in asked.items() if found.get("gpu") == "1"} == on_gpu
    for rule in (*on_gpu, "model", "tokens", "pool", "mask"):
        assert int(asked[rule]["mem_mb"]) > int(asked[rule]["peak_mb"]) > 100, rule
        assert int(asked[rule]["runtime"]) >= 30, rule
    assert int(asked[training.pop()]["peak_mb"]) > 3000, "CUDA takes memory of the host too"


@pytest.mark.parametrize(("gpus", "device"), [("0", "cpu"), ("1", "cuda")])
def test_a_job_that_asked_for_no_gpu_uses_none(monkeypatch, gpus, device):
    """On a node that has one, which another job may have been given."""
    monkeypatch.syspath_prepend(str(ROOT / "workflow/scripts"))
    job = importlib.import_module("job")
    monkeypatch.setattr(job.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(job, "resolve_device", lambda asked, key: "cuda")
    monkeypatch.setenv("EXPANDER_SAE_DEVICE", "auto")
    monkeypatch.setenv("EXPANDER_SAE_GPUS", gpus)
    assert job.device() == device
