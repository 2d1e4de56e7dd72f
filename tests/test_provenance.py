"""What made the results is recorded."""

import json
import subprocess

import pandas as pd

from expander_sae import provenance


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
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "first")
    clean = provenance.git_state(tmp_path)
    assert len(clean["commit"]) == 40 and clean["modified"] is False
    (tmp_path / "file").write_text("two")
    assert provenance.git_state(tmp_path) == {**clean, "modified": True}


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package-anywhere",))
    assert provenance.versions()["no-such-package-anywhere"] is None
