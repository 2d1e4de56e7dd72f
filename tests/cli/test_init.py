"""`expander-sae init`: the folder that it writes, and that the workflow plans there what it plans here."""

import subprocess
import sys

import pytest
import yaml

from expander_sae.storage.workflow_files import ROOT
from tests.workflow.planning import SNAKEMAKE


def jobs(folder, *arguments):
    """The table of jobs of a dry run in `folder`, without the target rule."""
    command = [*SNAKEMAKE, "--dry-run", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.partition("Job stats:")[2].partition("total")[0].splitlines()[3:]
    return [line.split() for line in lines if line.split() and line.split()[0] not in ("all", "study")]


def test_the_folder_plans_the_default_study(command, tmp_path):
    folder = tmp_path / "my study {x}"
    done = command("init", folder, "--json")
    assert done.code == 0 and done.json["files"][:2] == ["Snakefile", "config.yaml"]
    assert done.json["next"][0] == f"cd '{folder}'"
    assert (folder / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    planned = jobs(folder)
    assert planned == jobs(ROOT, "--directory", tmp_path / "other", "--configfile", ROOT / "config.yaml")
    assert {"collect", "frontier", "report"} <= {name for name, _ in planned}


def test_another_configuration_and_a_target_of_it(command, tmp_path):
    assert command("init", tmp_path / "s", "--config", "smoke").code == 0
    study = yaml.safe_load((tmp_path / "s" / "config.yaml").read_text())
    assert study == yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text())
    mask = "results/masks/expander_m16_n32_d3_seed0.json"
    subprocess.run([*SNAKEMAKE, mask], cwd=tmp_path / "s", check=True, capture_output=True)
    assert (tmp_path / "s" / mask).stat().st_size, "jobs find their scripts"


@pytest.mark.parametrize("there", ["config.yaml", "profiles/slurm/config.yaml"])
def test_a_study_that_is_there_is_left_alone(command, tmp_path, there):
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("mine")
    done = command("init", tmp_path)
    assert done.code == 1 and f"found {there} in {tmp_path}, expected a folder without a study" in done.err
    assert (tmp_path / there).read_text() == "mine" and not (tmp_path / "Snakefile").exists()


def test_a_missing_snakemake_is_said(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "snakemake", None)
    done = command("init", tmp_path / "s")
    assert done.code == 0 and "pip install 'expander-sae[workflow]'" in done.err
