"""Shards in object storage: rules make receipts, and jobs extract once, whatever becomes of these."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from expander_sae.activations.pool import Pool
from expander_sae.activations.shards import Shard
from expander_sae.activations.tokens import TokenizedDocument, write_token_table
from expander_sae.training.shard_pool import ShardPool
from tests.tiny_models import VOCABULARY, tiny_model_json
from tests.workflow.planning import ROOT, plan
from tests.workflow.test_plan import changed

SHARD, SHARDS = 40, 3


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "workflow" / "scripts"))
    names = ("extract", "pool", "shard_list")
    for name in (*names, "job"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return [importlib.import_module(name) for name in names]


def test_the_jobs_of_a_study_extract_there_once(scripts: list[ModuleType], tmp_path: Path) -> None:
    extract, pool, shard_list = scripts
    model, tokens = tiny_model_json(tmp_path / "model"), tmp_path / "tokens.parquet"
    draw = np.random.default_rng(0)
    documents = [TokenizedDocument(n, draw.integers(0, VOCABULARY, 12).tolist()) for n in range(8)]
    write_token_table(tokens, {"train": documents, "test": [], "ce": []})
    address = f"file://{tmp_path}/store"
    joined = {}
    for place in (None, address):
        folder = tmp_path / str(place is None) / "results" / "tiny" / "corpus"
        shards = folder / "layer1" / "shards"
        spec = {"model": "tiny-llama", "corpus": "corpus", "split": "train", "shard_tokens": SHARD}
        spec |= {"address": place} if place else {}
        for shard in range(SHARDS):
            out = [shards / f"train-{shard:05d}.{'json' if place else 'parquet'}"]
            assert extract.main(spec | {"shard": shard}, model, tokens, out)
            out[0].unlink() if place else None
            assert extract.main(spec | {"shard": shard}, model, tokens, out) is False
        data = folder / "layer1" / "pool" / "train.f32"
        told = {"split": "train", "shards": SHARDS} | ({"receipts": True} if place else {})
        pool.main(told, shards, data, data.with_suffix(".json"))
        joined[place] = Pool.open(data.with_suffix(".json"))
        assert {path.suffix for path in shards.iterdir()} == {".json" if place else ".parquet"}
    assert joined[None].sha256 == joined[address].sha256 and joined[None].tokens == 96
    assert joined[None].record["shards"] == joined[address].record["shards"]
    listed = data.with_name("train.shards.json")
    shard_list.main(told, shards, listed)
    streamed = ShardPool.listed(listed, 96, 64)
    assert np.array_equal(streamed[0:96], joined[None].activations)
    there = tmp_path / "store" / "tiny" / "corpus" / "layer1" / "shards" / "train-00001.parquet"
    assert Shard(there).about == Shard(shards / "train-00001.json").about


def test_the_rules_make_receipts_and_are_told_where(tmp_path: Path) -> None:
    config = changed(tokens={"address": "s3://bucket/study"})
    expected = plan(tmp_path, changed())
    assert plan(tmp_path, config) == expected and expected["pool"] == 3
    target = "results/smollm2-135m-instruct/docstrings/layer2/shards/train-00000"
    assert plan(tmp_path, config, f"{target}.json")["extract_smollm2_135m_instruct"] == 1
    assert plan(tmp_path, changed(), f"{target}.parquet")["extract_smollm2_135m_instruct"] == 1
