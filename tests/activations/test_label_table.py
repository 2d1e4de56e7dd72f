"""The table of labels: where documents are from, what tokens are, and what a user says of them."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expander_sae.activations.corpus import write_tokens
from expander_sae.activations.label_table import LabelTable, write_labels
from expander_sae.activations.origins import ORIGINS, Origins, text_sha256
from expander_sae.activations.sources import open_source
from expander_sae.activations.tokens import TokenTable
from expander_sae.errors import UserError
from tests.activations.test_corpus import NEEDS, spec, words

Written = tuple[Path, Path]


@pytest.fixture(scope="module")
def written(model_json: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """(folder of a token table, folder of its two files of texts)."""
    import random

    texts, out = tmp_path_factory.mktemp("texts"), tmp_path_factory.mktemp("tokens")
    draw = random.Random(0)
    for name in ("a", "b"):
        lines = [json.dumps({"text": words(12, draw)}) for _ in range(80)]
        (texts / f"{name}.jsonl").write_text("\n".join(lines))
    write_tokens(spec(texts), NEEDS, model_json, out / "tokens.parquet", out / "corpus.json")
    return out, texts


def labelled(model_json: Path, folder: Path, out: Path, user: Path | None = None) -> dict[str, np.ndarray]:
    write_labels(model_json, folder / "tokens.parquet", folder / ORIGINS, out / "labels.parquet", user=user)
    return LabelTable.read(out / "labels.parquet").columns


def rows_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_origins_are_those_of_the_documents_in_the_table(written: Written) -> None:
    folder, texts = written
    found = Origins.read(folder / ORIGINS).by_number
    documents = list(open_source(spec(texts)).documents)
    table = pq.read_table(folder / "tokens.parquet").to_pandas()
    assert sorted(found) == sorted(set(table.document))
    for number, (origin, sha256) in found.items():
        assert origin == (texts / ("a.jsonl" if number < 80 else "b.jsonl")).as_posix()
        assert sha256 == text_sha256(documents[number].text)


def test_a_row_for_each_test_token_in_order(written: Written, model_json: Path, tmp_path: Path) -> None:
    folder, texts = written
    columns = labelled(model_json, folder, tmp_path)
    table = TokenTable(folder / "tokens.parquet")
    read = table.read("test", 0, table.tokens("test"))
    for name in ("document", "position", "token_id"):
        assert (columns[name].astype(int) == getattr(read, name)).all()
    documents = list(open_source(spec(texts)).documents)
    for number in set(read.document.tolist()):
        own = columns["document"] == number
        assert documents[number].text.startswith("".join(columns["text"][own]))
        assert set(columns["origin"][own]) == {documents[number].origin}
    assert set(columns["kind"]) == {"word", "continuation", "blank"}
    assert set(columns["user"]) == {None}
    found = LabelTable.read(tmp_path / "labels.parquet")
    found.check(read.document[:50], read.position[:50], read.token_id[:50])
    with pytest.raises(UserError, match="other tokens than those of the test pool"):
        found.check(read.document, read.position, read.token_id + 1)


def test_labels_of_a_user_by_number_by_text_and_by_position(
    written: Written, model_json: Path, tmp_path: Path
) -> None:
    folder, texts = written
    documents = list(open_source(spec(texts)).documents)
    test = sorted(set(labelled(model_json, folder, tmp_path)["document"].tolist()))
    first, second = test[:2]
    train = next(number for number in Origins.read(folder / ORIGINS).by_number if number not in test)
    by_number = rows_of(
        tmp_path / "n.jsonl", [{"document": first, "label": "good"}, {"document": train, "label": "bad"}]
    )
    by_number.write_bytes(codecs.BOM_UTF8 + by_number.read_bytes())  # as some programs put it
    columns = labelled(model_json, folder, tmp_path, by_number)
    assert set(columns["user"][columns["document"] == first]) == {"good"}
    assert set(columns["user"][columns["document"] != first]) == {None}
    named = {"text": [documents[second].text, "nowhere"], "label": [3, 4]}
    pq.write_table(pa.table(named), tmp_path / "t.parquet")
    columns = labelled(model_json, folder, tmp_path, tmp_path / "t.parquet")
    assert set(columns["user"][columns["document"] == second]) == {"3"}
    place = {"document": second, "position": 2, "label": "third"}
    columns = labelled(model_json, folder, tmp_path, rows_of(tmp_path / "p.jsonl", [place]))
    assert np.flatnonzero(columns["user"] == "third").tolist() == [
        int(np.flatnonzero(columns["document"] == second)[2])
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"document": 1, "lable": "x"}],
            r"own\.jsonl:1: found document, lable, expected label, doc",
        ),
        (
            [{"document": 1, "text": "a", "label": "x"}],
            r"own\.jsonl:1: found document, label, text, exp",
        ),
        ([[1, "x"]], r"own\.jsonl:1: found list, expected label"),
        ([{"document": -1, "label": "x"}], r"document: found -1, expected a whole number from 0"),
        ([{"document": True, "label": "x"}], r"document: found True, expected a whole number"),
        ([{"document": 1, "label": None}], r"label: found None, expected a text or a whole number"),
        ([{"document": 1, "label": ""}], r"label: found '', expected a text"),
        ([{"text": 1, "label": "x"}], r"text: found 1, expected a text"),
        ([{"document": 100_000, "label": "x"}], r"found no row for a document of the token table"),
        ([{"text": "nowhere", "label": "x"}], r"found no row for a document of the token table"),
        ([{"document": None, "label": "x"}], r"document: found None"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    written: Written, model_json: Path, tmp_path: Path, rows: list[Any], message: str
) -> None:
    own = rows_of(tmp_path / "own.jsonl", rows)
    with pytest.raises(UserError, match=message):
        labelled(model_json, written[0], tmp_path, own)


def test_labels_that_contradict_or_name_no_token_are_refused(
    written: Written, model_json: Path, tmp_path: Path
) -> None:
    folder = written[0]
    one, *_ = sorted(set(labelled(model_json, folder, tmp_path)["document"].tolist()))
    twice = [{"document": one, "label": "x"}, {"document": one, "label": "y"}]
    mixed = [{"document": one, "label": "x"}, {"document": one, "position": 1, "label": "y"}]
    beyond = [{"document": one, "position": 99, "label": "x"}]
    for rows, message in (
        (twice, rf"own\.jsonl:2: found a second label for document {one}, expected one"),
        (
            mixed,
            r"own\.jsonl:2: found keys document, label, position, expected document, label as in",
        ),
        (beyond, rf"found position 99 of document {one}, expected one of its tokens, of which there are"),
    ):
        with pytest.raises(UserError, match=message):
            labelled(model_json, folder, tmp_path, rows_of(tmp_path / "own.jsonl", rows))
    kept = set(pq.read_table(folder / "tokens.parquet").to_pandas().query("split == 'train'").document)
    of_training = rows_of(tmp_path / "own.jsonl", [{"document": min(kept), "label": "x"}])
    with pytest.raises(UserError, match="found no label of a test document, expected at least one"):
        labelled(model_json, folder, tmp_path, of_training)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "own.csv",
            b"",
            r"evaluation\.labels: found .*own\.csv, expected a file ending in \.parquet",
        ),
        ("own.jsonl", b"{", r"own\.jsonl: not readable as jsonl"),
        ("own.jsonl", b"\xff", r"own\.jsonl: not readable as jsonl"),
        ("own.jsonl", b"[" * 100_000, r"own\.jsonl: not readable as jsonl"),
        ("own.parquet", b"PAR1 cut", r"own\.parquet: not readable as parquet"),
        ("absent.jsonl", None, r"evaluation\.labels: found no file .*absent\.jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    written: Written, model_json: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        labelled(model_json, written[0], tmp_path, tmp_path / name)


def test_a_column_or_key_that_stands_there_twice_is_refused(
    written: Written, model_json: Path, tmp_path: Path
) -> None:
    names = ["document", "label", "label"]
    columns = [pa.array([1]), pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.table(columns, names=names), tmp_path / "own.parquet")
    (tmp_path / "own.jsonl").write_text('{"document": 1, "label": "x", "label": "y"}')
    for name, said in (("own.parquet", "found 2 columns 'label'"), ("own.jsonl", "key 'label' stands there")):
        with pytest.raises(UserError, match=rf"{name}: .*{said}"):
            labelled(model_json, written[0], tmp_path, tmp_path / name)


def test_a_damaged_table_is_refused(written: Written, model_json: Path, tmp_path: Path) -> None:
    labelled(model_json, written[0], tmp_path)
    for path, read in (
        (tmp_path / "labels.parquet", LabelTable.read),
        (tmp_path / "o.parquet", Origins.read),
    ):
        raw = bytearray((path if path.exists() else written[0] / ORIGINS).read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        with pytest.raises(UserError, match=r"altered or cut short|not a readable table"):
            read(path)
