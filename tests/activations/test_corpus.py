import json
import random
import shutil

import pyarrow.parquet as pq
import pytest

from expander_sae.activations import sketches
from expander_sae.activations.corpus import write_tokens
from expander_sae.activations.splits import split_of
from expander_sae.activations.weights import materialise
from expander_sae.errors import UserError
from tests.tiny_models import ARCHITECTURES, VOCABULARY, tiny_model_json, tiny_spec

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NEEDS = {"train": 300, "test": 100, "ce": 3, "shard": 128}


def words(count, draw):
    return " ".join("".join(draw.choices(LETTERS, k=4)) for _ in range(count))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """200 documents of 12 words, each tenth a near-copy of an earlier one, and some too short."""
    path = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    texts = []
    for number in range(200):
        texts.append(words(1, draw) + " " + texts[number // 2] if number % 10 == 9 else words(12, draw))
    texts[5] = "ab"
    (path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


def spec(folder, **changes):
    base = {"name": "mine", "label": "mine", "source": "files", "location": str(folder), "revision": None}
    base |= {"subset": None, "split": "train", "column": "text", "context": 32, "min_tokens": 4}
    return {**base, "max_overlap": 0.2, "data_seed": 0, "licence": "none", **changes}


def written(folder, model_json, out, needs=NEEDS, **changes):
    write_tokens(spec(folder, **changes), needs, model_json, out / "tokens.parquet", out / "corpus.json")
    return pq.read_table(out / "tokens.parquet").to_pandas(), json.loads((out / "corpus.json").read_text())


def test_table_has_what_the_record_says(folder, model_json, tmp_path):
    table, record = written(folder, model_json, tmp_path)
    assert list(table.columns) == ["split", "document", "position", "token_id"]
    for split, tokens in (("train", 300), ("test", 100), ("ce", 96)):
        rows = table[table.split == split]
        assert len(rows) == record["splits"][split]["tokens"] >= -(-tokens // 128) * 128
        assert rows.document.nunique() == record["splits"][split]["documents"]
    assert (table.groupby("document").split.nunique() == 1).all()
    lengths = table.groupby("document").size()
    assert lengths.max() == 32 and lengths.min() >= 4
    assert record["overlap"]["test"]["share_in_train"] == 0.0
    assert record["documents_dropped"]["near_duplicate"] > 0
    assert record["lineage"] == "corpus1-model1"


def test_golden_tokens(folder, model_json, tmp_path):
    """If this changes, raise STAGE_VERSIONS["corpus"]."""
    _, record = written(folder, model_json, tmp_path)
    assert record["sha256"][:16] == "43c36f0a6e53370d"


def test_short_documents_and_near_copies_are_dropped(folder, model_json, tmp_path):
    table, _ = written(folder, model_json, tmp_path)
    assert 5 not in set(table.document)
    assert not any(number % 10 == 9 for number in set(table.document))


@pytest.mark.parametrize("more", [{"train": 1000}, {"test": 200}, {"ce": 9}, {"train": 900, "ce": 5}])
def test_asking_for_more_appends_and_changes_nothing(folder, model_json, tmp_path, more):
    few, _ = written(folder, model_json, tmp_path)
    many, _ = written(folder, model_json, tmp_path, {**NEEDS, **more})
    for split in ("train", "test", "ce"):
        before = few[few.split == split].reset_index(drop=True)
        after = many[many.split == split].reset_index(drop=True)
        assert after[: len(before)].equals(before)
        if split not in more:
            assert len(after) == len(before)


def test_validation_has_documents_of_its_own_that_no_other_split_needs(folder, model_json, tmp_path):
    without, _ = written(folder, model_json, tmp_path)
    table, record = written(folder, model_json, tmp_path, {**NEEDS, "validation": 60})
    for split in ("train", "test", "ce"):
        now = table[table.split == split].reset_index(drop=True)
        assert now.astype({"split": str}).equals(
            without[without.split == split].reset_index(drop=True).astype({"split": str})
        )
    own = set(table[table.split == "validation"].document)
    assert own and not own & set(without.document)
    assert len(table[table.split == "validation"]) == record["splits"]["validation"]["tokens"] >= 128
    texts = [json.loads(line)["text"] for line in (folder / "a.jsonl").read_text().splitlines()]
    assert {split_of(texts[number], 0) for number in own} == {"test", "ce"}, "none was held for training"
    last = {split: table[table.split == split].document.max() for split in ("test", "ce")}
    assert all(number > last[split_of(texts[number], 0)] for number in own)
    assert record["overlap"]["validation"]["share_in_train"] == 0.0


@pytest.mark.parametrize("more", [{"validation": 200}, {"train": 1000}])
def test_more_tokens_of_it_or_of_train_only_append_to_validation(folder, model_json, tmp_path, more):
    needs = {**NEEDS, "validation": 60}
    few, _ = written(folder, model_json, tmp_path, needs)
    many, _ = written(folder, model_json, tmp_path, {**needs, **more})
    for split in ("train", "test", "ce", "validation"):
        before = few[few.split == split].reset_index(drop=True)
        assert many[many.split == split].reset_index(drop=True)[: len(before)].equals(before)


def without_splits(table):
    return table.astype({"split": str}).reset_index(drop=True)


@pytest.mark.parametrize("exact_tokens", [0, 300])
def test_sketches_give_the_splits_that_exact_comparison_gives(folder, model_json, tmp_path, exact_tokens):
    """Of texts that are near-copies or have nothing in common."""
    expected, exact = written(folder, model_json, tmp_path)
    table, record = written(folder, model_json, tmp_path, exact_tokens=exact_tokens)
    assert without_splits(table).equals(without_splits(expected))
    assert record["overlap"] == exact["overlap"] and record["sha256"] == exact["sha256"]
    assert "documents_compared_exactly" not in exact
    assert (record["documents_compared_exactly"] > 0) == (exact_tokens > 0)
    assert record["documents_compared_exactly"] < record["documents_read"]
    few, _ = written(folder, model_json, tmp_path, {**NEEDS, "train": 130}, exact_tokens=exact_tokens)
    for split in ("train", "test", "ce"):
        before = without_splits(few[few.split == split])
        assert without_splits(table[table.split == split])[: len(before)].equals(before)


def test_overlap_is_estimated_where_a_split_has_many_sequences(folder, model_json, tmp_path, monkeypatch):
    monkeypatch.setattr(sketches.Sample.__init__, "__defaults__", (50,))
    _, found = written(folder, model_json, tmp_path)
    assert found["overlap"]["share_of_grams_sampled"] == {"train": 0.5}
    assert 50 < found["overlap"]["train_grams"] <= 100
    assert found["overlap"]["test"]["share_in_train"] == 0


def test_nothing_but_the_outputs_is_left_in_the_folder(folder, model_json, tmp_path):
    written(folder, model_json, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tokens.parquet", "corpus.json", "origins.parquet"}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="too small"):
        written(folder, model_json, tmp_path, {**NEEDS, "train": 10**6})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_data_seed_moves_documents_between_splits(folder, model_json, tmp_path):
    zero, _ = written(folder, model_json, tmp_path)
    one, _ = written(folder, model_json, tmp_path, data_seed=1)
    assert set(zero[zero.split == "train"].document) != set(one[one.split == "train"].document)


def test_finite_corpus_may_leave_its_last_shard_partial(folder, model_json, tmp_path):
    _, record = written(folder, model_json, tmp_path, {**NEEDS, "test": 1, "shard": 100_000})
    assert 0 < record["splits"]["test"]["tokens"] < 100_000


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (
            {"train": 10**6},
            r"too small for tokens\.train: found \d+ tokens in the train split, expected 1000000",
        ),
        ({"test": 10**6}, r"too small for tokens\.test"),
        ({"ce": 10**4}, r"too small for tokens\.ce_sequences: found \d+ documents"),
        (
            {"validation": 10**6},
            r"too small for tokens\.validation: found \d+ tokens in the validation split",
        ),
    ],
)
def test_fewer_tokens_than_asked(folder, model_json, tmp_path, more, key):
    with pytest.raises(UserError, match=f"corpus 'mine' is {key}"):
        written(folder, model_json, tmp_path, {**NEEDS, **more})
    assert list(tmp_path.iterdir()) == []


def test_context_beyond_the_positions_of_the_model(folder, model_json, tmp_path):
    with pytest.raises(UserError, match=r"corpus\.context: found 257, expected at most 256 \(positions of"):
        written(folder, model_json, tmp_path, context=257)
    assert not list(tmp_path.iterdir())


def test_empty_corpus(model_json, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="corpus 'mine': found no document"):
        written(tmp_path, model_json, tmp_path)


def test_the_start_of_a_document_is_kept_whatever_the_tokenizer_cuts(folder, model_json, tmp_path):
    """Near-duplicates are judged by it."""
    model = tmp_path / "model"
    shutil.copytree(model_json.parent / "weights", model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "truncation_side": "left"}))
    materialise(tiny_spec(model), model, tmp_path / "model.json")
    expected, _ = written(folder, model_json, tmp_path / "right")
    found, _ = written(folder, tmp_path / "model.json", tmp_path / "left")
    assert found.equals(expected)


def test_near_copies_without_blanks_are_kept_apart_too(model_json, tmp_path):
    draw = random.Random(0)
    texts = ["".join(chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(60)) for _ in range(40)]
    copies = [text[:30] + "新" + text[31:] for text in texts]
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in texts + copies]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    _, record = written(
        tmp_path, model_json, tmp_path / "out", {"train": 9, "test": 9, "ce": 1, "shard": 10**6}
    )
    assert record["documents_dropped"]["near_duplicate"] == len(copies)
    assert record["overlap"]["test"]["share_in_train"] == 0


def test_a_model_without_a_tokenizer_is_named_and_not_the_corpus(folder, tmp_path):
    """Of GPT-2 and others the library makes an empty one, which turns every text into nothing."""
    for architecture in ARCHITECTURES:
        model = tiny_model_json(tmp_path / architecture, architecture)
        for file in (model.parent / "weights").glob("tokenizer*"):
            file.unlink()
        materialise(tiny_spec(model.parent / "weights", architecture), model.parent / "weights", model)
        with pytest.raises(UserError, match=rf"models\[tiny-{architecture}\]: no .*tokenizer in .*weights"):
            written(folder, model, tmp_path / "out")


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff\xfe", b"", b'{"version": "1.0", "model": 3}'])
def test_a_tokenizer_of_another_form_is_named(folder, tmp_path, content):
    model = tiny_model_json(tmp_path)
    (tmp_path / "weights" / "tokenizer.json").write_bytes(content)
    materialise(tiny_spec(tmp_path / "weights"), tmp_path / "weights", model)
    with pytest.raises(UserError, match=r"models\[tiny-llama\]: no readable tokenizer in .*weights"):
        written(folder, model, tmp_path / "out")


def test_a_tokenizer_of_another_model_is_named(folder, tmp_path):
    """Its numbers would be looked up beyond the embeddings."""
    model = tiny_model_json(tmp_path)
    path = tmp_path / "weights" / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["model"]["vocab"]["e"] = VOCABULARY
    path.write_text(json.dumps(stored))
    materialise(tiny_spec(tmp_path / "weights"), tmp_path / "weights", model)
    found = rf"its tokenizer gives token {VOCABULARY} in document \d+, expected numbers below {VOCABULARY}"
    with pytest.raises(UserError, match=rf"models\[tiny-llama\]: {found}"):
        written(folder, model, tmp_path / "out")
