"""Folder names that tell settings apart."""

import os
import shutil

import pytest

from expander_sae.activations.splits import EXACT_TOKENS
from expander_sae.study import labels, presets
from expander_sae.study.labels import label_corpus, label_model
from expander_sae.study.study import load_config
from tests.study.configs import config, study_of

BUILT_IN = ("pile", "docstrings", "code")


def test_labels_tell_settings_apart():
    def labels(**changes):
        study = study_of(**changes)
        run = study.runs[0]
        return run.model, run.corpus, run.recipe

    plain = labels()
    assert plain == ("smollm2-135m-instruct", "docstrings", "tuned")
    half = labels(models=[{"name": "smollm2-135m-instruct", "layers": 15, "dtype": "bfloat16"}])
    assert half[0].startswith("smollm2-135m-instruct-") and len(half[0]) == len(plain[0]) + 7
    assert labels(corpus={"name": "docstrings", "data_seed": 1})[1].startswith("docstrings-")
    assert labels(training={"learning_rate": 1e-3})[2].startswith("tuned-")
    spelled_out = {"name": "smollm2-135m-instruct", **presets.MODELS["smollm2-135m-instruct"], "layers": [15]}
    assert labels(models=[spelled_out]) == plain
    assert labels(training={"batch_size": 256.0}) == plain, "a number equal to the default is the default"


def test_a_default_of_later_keys_is_no_change():
    """And the schema has the value that a spec without the key stands for."""
    corpus = load_config(config())["corpus"]
    assert corpus["exact_tokens"] == EXACT_TOKENS
    assert "exact_tokens" not in label_corpus(corpus) and label_corpus(corpus)["label"] == "docstrings"
    other = label_corpus(corpus | {"exact_tokens": 0})
    assert other["exact_tokens"] == 0 and other["label"].startswith("docstrings-")


def corpus_label(location, source="files"):
    return label_corpus({"name": "mine", "source": source, "location": str(location)})["label"]


@pytest.mark.parametrize("name", ["texts [v1]", "texts*", "{x}", "it's é", "[a-z]"])
def test_a_change_in_a_folder_of_any_name_is_noticed(tmp_path, name):
    """What was made from other texts must not pass for fresh."""
    folder = tmp_path / name
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a [1].txt").write_text("one")
    ways = [folder, folder / "sub" / "a [1].txt", folder / "sub" / "*.txt", folder / "**"]
    before = [corpus_label(way) for way in ways]
    (folder / "sub" / "a [1].txt").write_text("other")
    after = [corpus_label(way) for way in ways]
    assert not set(before) & set(after)
    (folder / "sub" / "b.txt").write_text("more")
    assert corpus_label(folder) != after[0]


def test_a_change_behind_a_link_or_a_tilde_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "linked").symlink_to(tmp_path / "elsewhere")

    def labels():
        model = {"name": "mine", "source": "folder", "location": "~/elsewhere"}
        hub = corpus_label(tmp_path / "texts", "hub")
        return {corpus_label(tmp_path / "texts"), corpus_label("~/texts"), label_model(model)["label"], hub}

    before = labels()
    (tmp_path / "elsewhere" / "a.txt").write_text("new")
    assert len(before) == 4 and not before & labels()


def test_texts_that_are_grouped_otherwise_get_another_folder(monkeypatch):
    """Of the Hub's data sets too, whose rows no plan reads; built-in ones keep the names that claims know."""
    known = [{"name": name, **presets.CORPORA[name]} for name in BUILT_IN]
    assert tuple(label_corpus(entry)["label"] for entry in known) == BUILT_IN
    own = {**known[0], "name": "own"}
    before = label_corpus(own)["label"]
    monkeypatch.setattr(labels, "_READING", "another")
    assert label_corpus(own)["label"] != before
    assert tuple(label_corpus(entry)["label"] for entry in known) == BUILT_IN


@pytest.mark.parametrize("name", presets.PACKAGE_SOURCES)
def test_texts_of_other_versions_of_the_packages_get_another_folder(name, monkeypatch):
    entry = {"name": name, **presets.CORPORA[name]}
    monkeypatch.setattr(labels, "version", lambda package: "0.0.1")
    assert label_corpus(entry)["label"].startswith(f"{name}-")


def test_a_link_to_nothing_and_a_pipe_stop_no_plan(tmp_path):
    """Nobody writes into the pipe: a plan that read it would wait for ever."""
    (tmp_path / "gone.txt").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.txt")
    assert corpus_label(tmp_path) == corpus_label(tmp_path)


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
