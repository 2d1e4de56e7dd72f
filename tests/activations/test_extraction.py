import numpy as np
import pytest
import torch

from expander_sae.activations import extraction, shards
from expander_sae.activations.extraction import extract_shard
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.shards import Shard
from expander_sae.activations.tokens import TokenizedDocument, TokenTable, write_token_table
from expander_sae.errors import UserError
from tests.tiny_models import VOCABULARY, tiny_model_json

SHARD = 40


@pytest.fixture(scope="module")
def documents():
    draw = np.random.default_rng(0)
    return [draw.integers(0, VOCABULARY, draw.integers(4, 20)).tolist() for _ in range(9)]


@pytest.fixture(scope="module")
def tokens_parquet(documents, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.parquet"
    numbered = [TokenizedDocument(3 * n, ids) for n, ids in enumerate(documents)]
    write_token_table(path, {"train": numbered, "test": [], "ce": []})
    return path


def extract(model_json, tokens_parquet, out, shard, layers=(0, 2), batch_tokens=48, split="train"):
    outputs = {layer: out / f"layer{layer}" / f"{split}-{shard:05d}.parquet" for layer in layers}
    extract_shard(model_json, tokens_parquet, split, shard, SHARD, outputs, "cpu", batch_tokens)
    return outputs


def columns(paths):
    groups = [group for path in paths for group in Shard(path).row_groups()]
    return {
        name: np.concatenate([getattr(g, name) for g in groups])
        for name in ("document", "position", "token_id", "activation")
    }


def test_shards_together_hold_every_document(model, model_json, documents, tokens_parquet, tmp_path):
    total = sum(map(len, documents))
    count = -(-total // SHARD)
    written = [extract(model_json, tokens_parquet, tmp_path, shard) for shard in range(count)]
    for layer in (0, 2):
        paths = [outputs[layer] for outputs in written]
        assert [Shard(p).tokens for p in paths] == [SHARD] * (count - 1) + [total - SHARD * (count - 1)]
        found = columns(paths)
        assert found["token_id"].tolist() == [t for ids in documents for t in ids]
        assert found["position"].tolist() == [p for ids in documents for p in range(len(ids))]
        assert found["document"].tolist() == [3 * n for n, ids in enumerate(documents) for _ in ids]
        expected = [model.residual(torch.tensor([ids]), [layer])[layer][0] for ids in documents]
        torch.testing.assert_close(torch.from_numpy(found["activation"]), torch.cat(expected))


def test_metadata_says_where_the_shard_belongs(model_json, tokens_parquet, tmp_path):
    about = Shard(extract(model_json, tokens_parquet, tmp_path, 1)[2]).about
    assert {key: about[key] for key in ("model", "layer", "split", "shard", "shard_tokens", "lineage")} == {
        "model": "tiny-llama",
        "layer": 2,
        "split": "train",
        "shard": 1,
        "shard_tokens": SHARD,
        "lineage": "corpus1-extraction1-model1",
    }


def test_metadata_tell_one_token_range_from_another(model_json, tokens_parquet, tmp_path):
    first, second = (extract(model_json, tokens_parquet, tmp_path, shard)[0] for shard in (0, 1))
    expected = TokenTable(tokens_parquet).read("train", SHARD, 2 * SHARD).sha256
    assert Shard(second).about["tokens_sha256"] == expected
    assert Shard(first).about["tokens_sha256"] != expected


def test_golden_activations(model_json, tokens_parquet, tmp_path):
    """If this changes, raise STAGE_VERSIONS["extraction"]."""
    found = columns([extract(model_json, tokens_parquet, tmp_path, 0)[2]])["activation"]
    np.testing.assert_allclose(found[[3, 30], [5, 7]], [3.012925, 1.552783], rtol=1e-4)


def test_same_settings_give_the_same_bytes(model_json, tokens_parquet, tmp_path):
    first = extract(model_json, tokens_parquet, tmp_path / "a", 0)
    again = extract(model_json, tokens_parquet, tmp_path / "b", 0)
    assert all(first[layer].read_bytes() == again[layer].read_bytes() for layer in first)


def test_layers_asked_together_or_apart_are_the_same(model_json, tokens_parquet, tmp_path):
    together = extract(model_json, tokens_parquet, tmp_path / "a", 0)
    apart = extract(model_json, tokens_parquet, tmp_path / "b", 0, layers=[0])
    assert together[0].read_bytes() == apart[0].read_bytes()


def test_batch_size_changes_rounding_only(model_json, tokens_parquet, tmp_path):
    small = columns(extract(model_json, tokens_parquet, tmp_path / "a", 0, batch_tokens=1).values())
    large = columns(extract(model_json, tokens_parquet, tmp_path / "b", 0, batch_tokens=4096).values())
    np.testing.assert_allclose(small["activation"], large["activation"], rtol=1e-4, atol=1e-5)


def test_many_shards_by_one_model_are_those_of_one_each(model_json, tokens_parquet, tmp_path, monkeypatch):
    alone = {shard: extract(model_json, tokens_parquet, tmp_path / "alone", shard) for shard in (0, 1, 5)}
    loads = []
    genuine = extraction.load_checked
    monkeypatch.setattr(extraction, "load_checked", lambda *told: loads.append(told) or genuine(*told))
    outputs = {
        shard: {layer: tmp_path / f"{layer}-{shard}.parquet" for layer in files}
        for shard, files in alone.items()
    }
    del outputs[1][0]  # of a layer that is there
    extraction.extract_shards(model_json, tokens_parquet, "train", outputs, SHARD, "cpu", 48)
    assert len(loads) == 1
    for shard, files in outputs.items():
        for layer, path in files.items():
            assert path.read_bytes() == alone[shard][layer].read_bytes()


def test_a_long_shard_is_extracted_in_parts(model_json, documents, tokens_parquet, tmp_path, monkeypatch):
    """Of whole row groups, through documents: the same rows but for rounding, and never more of them held."""
    expected = columns([extract(model_json, tokens_parquet, tmp_path / "a", 0)[2]])
    held = []
    whole = extraction.residuals

    def counted(model, tokens, *others):
        held.append(len(tokens.document) - tokens.context)
        return whole(model, tokens, *others)

    monkeypatch.setattr(extraction, "residuals", counted)
    monkeypatch.setattr(extraction, "EXTRACTED_TOKENS", 16)
    monkeypatch.setattr(shards, "ROW_GROUP", 8)
    paths = extract(model_json, tokens_parquet, tmp_path / "b", 0)
    assert held == [16, 16, 8]
    shard = Shard(paths[2])
    assert shard.about["tokens_sha256"] == TokenTable(tokens_parquet).read("train", 0, SHARD).sha256
    found = columns([paths[2]])
    assert [len(group) for group in shard.row_groups()] == [8] * 5
    np.testing.assert_allclose(found.pop("activation"), expected.pop("activation"), rtol=1e-4, atol=1e-5)
    assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_shard_beyond_the_split_has_no_tokens(model_json, tokens_parquet, tmp_path):
    assert Shard(extract(model_json, tokens_parquet, tmp_path, 99)[0]).tokens == 0
    assert Shard(extract(model_json, tokens_parquet, tmp_path, 0, split="ce")[0]).tokens == 0


def test_layer_the_model_does_not_have(model_json, tokens_parquet, tmp_path):
    with pytest.raises(UserError, match="found 3, expected 0 to 2"):
        extract(model_json, tokens_parquet, tmp_path, 0, layers=(0, 3))
    assert list(tmp_path.iterdir()) == []


def test_activations_that_are_not_finite_are_refused(monkeypatch, tokens_parquet, tmp_path):
    path = tiny_model_json(tmp_path / "model")
    extract(path, tokens_parquet, tmp_path / "before", 0)  # the model itself is tested by now

    def overflow(self, ids, layers):
        return {layer: torch.full((*ids.shape, self.width), torch.inf) for layer in layers}

    monkeypatch.setattr(LanguageModel, "residual", overflow)
    with pytest.raises(UserError, match=r"models\[tiny-llama\]\.dtype: layer 0 .* not finite"):
        extract(path, tokens_parquet, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()
