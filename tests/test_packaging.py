"""One version everywhere, and a wheel that has what the workflow reads."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import expander_sae
from expander_sae.cli import init
from expander_sae.storage.workflow_files import BENCHMARKS, CLAIMS, RESOURCES, SCHEMAS, SNAKEFILE
from tests.workflow.planning import BEING_WRITTEN

ROOT = Path(__file__).resolve().parents[1]


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"] == {"path": "expander_sae/__init__.py"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == expander_sae.__version__
    assert "2607.01799" in citation["references"][0]["identifiers"][0]["value"]


def test_a_wheel_carries_all_that_the_workflow_reads():
    """What is read and `force-include` leaves out would be in a checkout and missing from a wheel."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    carried = wheel["force-include"]
    assert all(target == f"expander_sae/_workflow/{source}" for source, target in carried.items())
    assert all((ROOT / source).exists() for source in carried)
    files = [SNAKEFILE, ROOT / "config.yaml", CLAIMS, *SCHEMAS.iterdir(), *RESOURCES.iterdir()]
    files += [*BENCHMARKS.glob("*.json"), *(ROOT / "configs").iterdir()]
    files += [ROOT / "profiles" / name / "config.yaml" for name in init.PROFILES]
    for path in files:
        inner = Path(path).relative_to(ROOT)
        assert {inner.as_posix(), *(parent.as_posix() for parent in inner.parents)} & set(carried), inner
    listed = re.findall(r'^include: "(.*)"', Path(SNAKEFILE).read_text(), re.MULTILINE)
    assert len(listed) > 10 and all(name.startswith("workflow/") for name in listed)


def test_without_a_folder_beside_the_package_the_workflow_is_the_one_within(tmp_path):
    """As a wheel installs it: the same code finds the files in the package."""
    package = tmp_path / "expander_sae"
    shutil.copytree(ROOT / "expander_sae" / "storage", package / "storage", ignore=BEING_WRITTEN)
    (package / "__init__.py").touch()
    code = "from expander_sae.storage.workflow_files import ROOT; print(ROOT)"
    for expected in (tmp_path, package / "_workflow"):
        expected.mkdir(exist_ok=True)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env={})
        assert done.stdout.strip() == str(expected.resolve())


def test_what_a_package_index_shows_links_to_nothing_beside_it():
    """The substitutions of pyproject.toml, on the README as it is: links of a checkout lead nowhere there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](docs/" in text and "```mermaid" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for rule in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == [] and "mermaid" not in text
    assert text.startswith("# expander-sae\n") and "arXiv 2607.01799" in text
