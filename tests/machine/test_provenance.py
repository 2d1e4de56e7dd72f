"""What made the results is recorded."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from expander_sae.errors import UserError
from expander_sae.machine import provenance
from expander_sae.measurements import tables
from expander_sae.storage.files import read_json
from expander_sae.storage.seals import write_sealed_json
from tests.study.configs import config

ROOT = Path(__file__).resolve().parents[2]


def test_the_record_is_plain_json_with_everything_that_matters(tmp_path):
    timings = pd.DataFrame(
        {
            "stage": ["training", "training", "model"],
            "job": ["a", "b", "c"],
            "seconds": [1.5, 2.5, 3.0],
            "peak_mb": [100.0, 300.0, 50.0],
        }
    )
    record = provenance.record({"grid": {"d": [7]}}, timings, tmp_path, {"model": {"sha256": "0"}}, ["x"])
    assert json.loads(json.dumps(record)) == record
    assert record["cost"] == {
        "model": {"jobs": 1, "seconds": 3.0, "peak_mb": 50.0},
        "training": {"jobs": 2, "seconds": 4.0, "peak_mb": 300.0},
    }
    assert record["versions"]["torch"] and record["versions"]["python"]
    assert record["hardware"]["cores"] >= 1
    assert record["code"]["stages"]["training"] >= 1
    assert record["left_out"] == ["x"]


def test_a_changed_checkout_is_told_from_a_clean_one(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    assert provenance.git_state(tmp_path) == {"commit": None, "modified": None}
    git("init", "-q")
    (tmp_path / "Snakefile").write_text("one")
    git("commit", "-qm", "of another project", "--allow-empty")
    assert provenance.git_state(tmp_path) == {"commit": None, "modified": None}, "git does not know our files"
    git("add", "Snakefile")
    git("commit", "-qm", "first")
    clean = provenance.git_state(tmp_path)
    assert len(clean["commit"]) == 40 and clean["modified"] is False
    (tmp_path / "Snakefile").write_text("two")
    assert provenance.git_state(tmp_path) == {**clean, "modified": True}


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package-anywhere",))
    assert provenance.versions()["no-such-package-anywhere"] is None


def test_the_job_needs_no_record_of_models_that_nothing_was_run_on(tmp_path):
    """A fresh clone whose study has every row: neither model.json nor corpus.json is ever made."""
    tables.write_timings([], tmp_path / "timings.parquet")
    job = [sys.executable, ROOT / "workflow/scripts/summary.py", "provenance", "--log", "provenance.log"]
    asked = ["--config", json.dumps(config(study={"folder": "studies/mine"})), "--timings", "timings.parquet"]
    subprocess.run([*job, *asked, "--out", "results/provenance.json"], cwd=tmp_path, check=True)
    written = read_json(tmp_path / "results" / "provenance.json")
    assert written["inputs"] == {"smollm2-135m-instruct": {}}


def test_records_that_are_there_are_kept_and_damaged_ones_named(tmp_path):
    write_sealed_json(tmp_path / "a" / "model.json", {"sha256": "0"})
    assert provenance.inputs(tmp_path, ["a", "b"], "words") == {"a": {"model": {"sha256": "0"}}, "b": {}}
    (tmp_path / "b").mkdir()
    damaged = (tmp_path / "a" / "model.json").read_bytes().replace(b'"0"', b'"1"')
    (tmp_path / "b" / "model.json").write_bytes(damaged)
    with pytest.raises(UserError, match=r"b/model\.json: altered"):
        provenance.inputs(tmp_path, ["a", "b"], "words")
