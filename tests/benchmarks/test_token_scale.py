"""The tasks of the benchmark of many tokens follow one another, and leave one copy of the activations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import token_scale
from benchmarks.scale import save
from expander_sae.activations.shards import about_of
from expander_sae.model.autoencoder import SparseAutoencoder


def test_from_texts_to_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_scale, "_NEEDED_SHARD", 1024)
    monkeypatch.setattr(token_scale, "SHARD", 2048)
    monkeypatch.setattr(token_scale, "BATCH", 64)
    tokens = 5000
    token_scale.write_texts(tmp_path / "texts.jsonl", tokens)
    token_scale.write_model(tmp_path)
    for task in token_scale.TASKS.values():
        task(tmp_path, tokens)
    held = [about_of(path)["tokens"] for path in sorted((tmp_path / "shards").iterdir())]
    assert held[:2] == [2048, 2048] and sum(held) >= tokens
    trained = SparseAutoencoder.load(tmp_path / "run" / "weights.safetensors")
    assert trained.about["spec"]["steps"] == tokens // 64 and trained.m == token_scale.WIDTH
    assert not list(tmp_path.rglob("*.f32"))


def test_rows_are_saved_beside_those_of_other_tasks_backends_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    old = [
        {"task": "step", "backend": "numba", "seconds": 3},
        {"task": "step", "backend": "torch", "seconds": 4},
        {"task": "corpus", "tokens": 10, "seconds": 1},
        {"task": "corpus", "tokens": 20, "seconds": 2},
    ]
    save(old, path)
    new = [{"task": "corpus", "tokens": 20, "seconds": 5}, {"task": "step", "backend": "torch", "seconds": 6}]
    save(new, path)
    assert json.loads(path.read_text()) == [old[0], old[2], *new]
