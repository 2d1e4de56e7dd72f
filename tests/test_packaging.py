"""One version everywhere, and a package whose data is found."""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest
import yaml

import expander_sae
from expander_sae.errors import UserError
from expander_sae.study.study import load_config

ROOT = Path(__file__).resolve().parents[1]


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "expander_sae.__version__"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == expander_sae.__version__
    assert "2607.01799" in citation["references"][0]["identifiers"][0]["value"]


def test_every_data_file_of_the_package_is_declared():
    """What is not declared is in a checkout and missing from a wheel."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = Path(str(resources.files("expander_sae")))
    found = [
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]
    assert len(found) >= 2
    declared = {
        path
        for name, globs in patterns.items()
        for glob in globs
        for path in package.parent.joinpath(*name.split(".")).glob(glob)
    }
    assert not set(found) - declared


def test_without_the_workflow_a_configuration_is_refused_in_words(tmp_path):
    """The schema is the workflow's: a wheel has none."""
    with pytest.raises(UserError, match=r"schema\.yaml: no such file; .* in a checkout of the workflow"):
        load_config({}, tmp_path / "workflow/schemas/config.schema.yaml")


def test_commands_that_need_the_checkout_say_so(tmp_path):
    """The package alone, as a wheel installs it."""
    shutil.copytree(ROOT / "expander_sae", tmp_path / "expander_sae")
    (tmp_path / "config.yaml").write_text("models: []\n")
    for arguments in (["expander_sae.cost", "config.yaml"], ["expander_sae.report", "."]):
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {tmp_path}/workflow/") and done.stderr.count("\n") == 1
        assert "in a checkout of the" in done.stderr and "not by the installed library alone" in done.stderr
