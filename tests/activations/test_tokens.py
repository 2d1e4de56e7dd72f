import numpy as np
import pytest

from expander_sae.activations import tokens as tokens_module
from expander_sae.activations.tokens import MOST_POSITIONS, TokenizedDocument, TokenTable, write_token_table
from expander_sae.errors import UserError


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens_module, "_ROW_GROUP", 7)  # many row groups
    draw = np.random.default_rng(0)
    number, splits = 0, {"train": [], "test": [], "ce": []}
    for split, documents in splits.items():
        for _ in range({"train": 9, "test": 3, "ce": 0}[split]):
            documents.append(TokenizedDocument(number, draw.integers(0, 99, draw.integers(1, 12)).tolist()))
            number += 2
    write_token_table(tmp_path / "tokens.parquet", splits)
    return TokenTable(tmp_path / "tokens.parquet"), splits


def test_every_range_starts_at_a_document_and_holds_what_was_written(table):
    reader, splits = table
    for split, documents in splits.items():
        ids = np.array([t for d in documents for t in d.token_ids], np.int64)
        numbers = np.array([d.number for d in documents for _ in d.token_ids], np.int64)
        assert reader.tokens(split) == len(ids)
        for start in range(len(ids) + 2):
            for stop in (start, start + 1, start + 5, start + 20):
                found = reader.read(split, start, stop)
                kept = slice(found.context, None)
                assert found.token_id[kept].tolist() == ids[start:stop].tolist()
                assert found.document[kept].tolist() == numbers[start:stop].tolist()
                if len(found.position):
                    assert found.position[0] == 0
                    same = found.document[1:] == found.document[:-1]
                    assert (np.diff(found.position)[same] == 1).all()
                    assert (found.position[1:][~same] == 0).all()


def test_longest_document_of_all_splits(tmp_path, monkeypatch):
    monkeypatch.setattr("expander_sae.activations.tokens._ROW_GROUP", 4)
    path = tmp_path / "tokens.parquet"
    for lengths, expected in (([3, 9, 2], 9), ([1], 1), ([], 0)):
        documents = [TokenizedDocument(n, [5] * length) for n, length in enumerate(lengths)]
        write_token_table(path, {"train": documents[:1], "test": documents[1:], "ce": []})
        assert TokenTable(path).longest == expected


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="absent"):
        TokenTable(tmp_path / "absent.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cut\.parquet"):
        TokenTable(tmp_path / "cut.parquet")


@pytest.mark.parametrize(("tokens", "fits"), [(MOST_POSITIONS, True), (MOST_POSITIONS + 1, False)])
def test_positions_are_right_or_the_document_is_refused(tmp_path, tokens, fits):
    """Beyond 2^15 they would be negative, and every range of tokens empty."""
    splits = {"train": [TokenizedDocument(0, [7] * tokens)], "test": [], "ce": []}
    path = tmp_path / "tokens.parquet"
    if fits:
        write_token_table(path, splits)
        assert TokenTable(path).read("train", tokens - 2, tokens).position.tolist() == list(range(tokens))
    else:
        with pytest.raises(
            UserError, match=r"tokens\.parquet: found a document of 32769 tokens, expected at most 32768"
        ):
            write_token_table(path, splits)
        assert not path.exists()


def test_the_hash_of_a_range_is_that_of_what_is_read(tmp_path, monkeypatch):
    splits = {"train": [TokenizedDocument(n, [n, 5, 7] * (n + 1)) for n in range(9)], "test": [], "ce": []}
    write_token_table(tmp_path / "tokens.parquet", splits)
    table = TokenTable(tmp_path / "tokens.parquet")
    monkeypatch.setattr(tokens_module, "_ROW_GROUP", 10)
    for start, stop in ((0, 40), (40, 80), (13, 14), (120, 999), (200, 300), (50, 50)):
        assert table.sha256("train", start, stop) == table.read("train", start, stop).sha256
