"""Folder names that tell settings apart."""

import os
import shutil

from expander_sae.study import presets
from tests.study.configs import study_of


def test_labels_tell_settings_apart():
    def labels(**changes):
        study = study_of(**changes)
        run = study.runs[0]
        return run.model, run.corpus, run.recipe

    plain = labels()
    assert plain == ("smollm2-135m-instruct", "docstrings", "standard")
    half = labels(models=[{"name": "smollm2-135m-instruct", "layers": 15, "dtype": "bfloat16"}])
    assert half[0].startswith("smollm2-135m-instruct-") and len(half[0]) == len(plain[0]) + 7
    assert labels(corpus={"name": "docstrings", "data_seed": 1})[1].startswith("docstrings-")
    assert labels(training={"learning_rate": 1e-3})[2].startswith("standard-")
    spelled_out = {"name": "smollm2-135m-instruct", **presets.MODELS["smollm2-135m-instruct"], "layers": [15]}
    assert labels(models=[spelled_out]) == plain
    assert labels(training={"batch_size": 256.0}) == plain, "a number equal to the default is the default"


def test_a_copied_study_keeps_its_labels(tmp_path, monkeypatch):
    """As of `cp -r`, or of rsync without times: every file of the copy is new."""
    first = tmp_path / "first"
    (first / "model").mkdir(parents=True)
    (first / "texts").mkdir()
    (first / "model" / "model.safetensors").write_bytes(b"weights")
    (first / "texts" / "a.txt").write_text("a text")
    shutil.copytree(first, tmp_path / "second", copy_function=shutil.copy)
    os.utime(tmp_path / "second" / "model" / "model.safetensors", (0, 0))
    os.utime(tmp_path / "second" / "texts" / "a.txt", (0, 0))
    model = {"name": "mine", "source": "folder", "location": "model", "width": 576, "depth": 30, "layers": 15}
    corpus = {"name": "texts", "source": "files", "location": "texts"}

    def labels(folder):
        monkeypatch.chdir(tmp_path / folder)
        run = study_of(models=[model], corpus=corpus).runs[0]
        return run.model, run.corpus

    assert labels("first") == labels("second") != ("mine", "texts")
    before = labels("second")
    (tmp_path / "second" / "model" / "model.safetensors").write_bytes(b"altered")
    (tmp_path / "second" / "texts" / "a.txt").write_text("b text")
    for found, old in zip(labels("second"), before, strict=True):
        assert found != old, "equal names and sizes, other content"
