"""What starts the project elsewhere: GitHub, a container, a cluster's profile, the workflow catalog."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.planning import PARTS, snakemake

ROOT = Path(__file__).resolve().parents[1]
RULES = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))


def test_github_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert 20 <= job["timeout-minutes"] <= 90 and workflow["permissions"] == {"contents": "read"}
    assert job["steps"][-1]["run"].endswith(" .ci/run") and (ROOT / ".ci/run").stat().st_mode & 0o111
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]) for step in job["steps"][:-1])
    python = next(step["with"]["python-version"] for step in job["steps"] if "with" in step)
    assert f"From: python:{python}." in (ROOT / "containers/expander-sae.def").read_text(), "one Python"
    assert set(job["env"]) <= set(re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))


def sections():
    """Section of the container's definition → its lines."""
    text = (ROOT / "containers/expander-sae.def").read_text()
    found = re.split(r"^%(\w+)$", text, flags=re.MULTILINE)
    header = [line for line in found[0].splitlines() if not line.startswith("#")]
    return {"header": header} | {
        name: [line.strip() for line in body.splitlines() if line.strip() and "#" not in line]
        for name, body in zip(found[1::2], found[2::2], strict=True)
    }


def test_the_container_has_a_pinned_base_and_the_locked_versions():
    found = sections()
    (base,) = (line.removeprefix("From: ") for line in found["header"] if line.startswith("From: "))
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-\w+", base), "not a tag that moves"
    assert dict(line.split() for line in found["labels"]) == {
        "org.opencontainers.image.title": "expander-sae",
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    (install,) = found["post"]
    assert install.startswith("make -C /opt/expander-sae install "), (
        "which takes exact versions from the lock"
    )
    assert found["arguments"] == ["TORCH_INDEX="] and 'TORCH_INDEX="{{ TORCH_INDEX }}"' in install


def test_the_container_has_what_make_and_the_jobs_read():
    copied = dict(line.split() for line in sections()["files"])
    assert all(target == f"/opt/expander-sae/{source}" for source, target in copied.items())
    assert all((ROOT / source).exists() for source in copied)
    assert set(PARTS) <= set(copied)
    # What pyproject.toml names and building the package reads.
    assert {"README.md", "LICENSE"} <= set(copied)


def test_jobs_take_from_the_container_what_they_are_called_by():
    exported = dict(line.removeprefix("export ").split("=") for line in sections()["environment"])
    called = set(re.findall(r'"\$(\w+)"', RULES))
    assert called == set(exported) == {"EXPANDER_SAE_PYTHON", "EXPANDER_SAE_SCRIPTS"}
    assert Path(exported["EXPANDER_SAE_SCRIPTS"]).relative_to("/opt/expander-sae") == Path("workflow/scripts")
    assert re.findall(r'^container: "(.*)"', (ROOT / "Snakefile").read_text(), re.M) == ["expander-sae.sif"]


APPTAINER = """#!/bin/sh
[ "$1" = --version ] && {{ echo apptainer version 1.3.0; exit; }}
for given; do shift; [ "$given" = -c ] && break; image=$shell; shell=$given; done
echo "$image" >> {log}
EXPANDER_SAE_PYTHON={python} EXPANDER_SAE_SCRIPTS={scripts} exec "$shell" -c "$1"
"""
"""What Apptainer does with a job but for its walls: the image's variables, then the command in its shell."""


@pytest.mark.slow
def test_a_job_runs_in_the_container_with_the_programs_of_the_image(tmp_path, monkeypatch):
    """The scripts that it finds there lie elsewhere than those of the machine outside."""
    (tmp_path / "bin").mkdir()
    shutil.copytree(ROOT / "workflow" / "scripts", tmp_path / "image")
    python, log = tmp_path / "image" / "python", tmp_path / "started"
    python.write_text(f'#!/bin/sh\necho "$1" >> {log}\nexec {shlex.quote(sys.executable)} "$@"\n')
    program = tmp_path / "bin" / "apptainer"
    program.write_text(APPTAINER.format(log=log, python=python, scripts=tmp_path / "image"))
    for made in (python, program):
        made.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    study = tmp_path / "study"
    study.mkdir()
    (study / "expander-sae.sif").touch()
    mask = "results/masks/expander_m16_n32_d3_seed0.json"
    config = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text())
    done = snakemake(study, config, "--software-deployment-method", "apptainer", "--", mask)
    assert done.returncode == 0, done.stderr
    image, script = log.read_text().splitlines()
    assert (study / image).resolve() == study / "expander-sae.sif"
    assert script == str(tmp_path / "image" / "mask.py") and (study / mask).stat().st_size


@pytest.mark.parametrize("name", ["slurm", "slurm-ci"])
def test_groups_of_a_cluster_name_rules_and_ask_for_less_than_a_node(name):
    profile = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    rules = set(re.findall(r"^ *rule (\w+):", RULES, re.MULTILINE))
    assert set(profile["groups"]) <= rules
    # Masks need nothing of each other: all of a group run at once, with a CPU each.
    assert set(profile["group-components"]) <= set(profile["groups"].values())
    assert max(profile["group-components"].values()) <= 16


def test_what_snakedeploy_copies_is_the_default_configuration(tmp_path):
    """It takes the folder config/ of a repository, and writes a Snakefile that reads config/config.yaml."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    copied = tmp_path / "config" / "config.yaml"
    assert not copied.is_symlink() and copied.read_bytes() == (ROOT / "config.yaml").read_bytes()
