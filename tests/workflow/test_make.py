"""What `make` hands on: names that a shell would read otherwise, and no setting that makes every job slow."""

import shutil

import pytest

from tests.workflow.planning import checkout, make

ODD = ("it's [1].yaml", 'say "so".yaml', "a  b.yaml", "a;touch canary", "`touch canary`", "{x}*", "é")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("make") / "it's  [1]")


@pytest.mark.parametrize("name", ODD)
def test_what_is_given_to_make_reaches_the_command_as_it_is(folder, name):
    done = make(folder, "frontier", CONFIG=name)
    assert f"error: {name}: no such configuration file (CONFIG of make)" in done.stderr
    done = make(folder, "frontier", CONFIG="configs/smoke.yaml", PROFILE=name)
    assert f"error: {name}: found no profile, expected a folder with a config.yaml" in done.stderr
    done = make(folder, "figures", STUDY=name)
    assert done.returncode and name in done.stderr and "Traceback" not in done.stderr
    done = make(folder, "install", STAMP=".venv/none", PYTHON=f"/nowhere/{name}")
    assert f"make: found no /nowhere/{name}; install Python 3.11 or newer" in done.stderr
    assert not (folder / "canary").exists()


def test_what_python_compiles_is_kept_also_where_the_environment_says_otherwise(folder, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    kept = folder / "expander_sae" / "__pycache__"
    shutil.rmtree(kept, ignore_errors=True)
    make(folder, "frontier", CONFIG="none.yaml")
    assert any(kept.glob("errors.*.pyc"))
