import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expander_sae.activations.sources import open_source
from expander_sae.errors import UserError


def spec(location, source="files", **changes):
    base = {"source": source, "location": str(location), "revision": None, "subset": None, "split": "train"}
    return {**base, "column": "text", "data_seed": 0, **changes}


def texts(*args, **kwargs):
    return [document.text for document in open_source(spec(*args, **kwargs)).documents]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("plain text\n\nof two paragraphs")
    rows = [{"text": "line one"}, {"text": "line two", "other": 1}, {"text": None}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    pq.write_table(pa.table({"text": ["cell one", None, "cell two"]}), tmp_path / "sub" / "c.parquet")
    (tmp_path / "notes.md").write_text("ignored in a folder")
    return tmp_path


def test_folder_is_read_in_order_of_paths(folder):
    assert texts(folder) == [
        "line one",
        "line two",
        "plain text\n\nof two paragraphs",
        "cell one",
        "cell two",
    ]


def test_glob_and_single_file(folder):
    assert texts(folder / "**" / "*.parquet") == ["cell one", "cell two"]
    assert texts(folder / "b.txt") == ["plain text\n\nof two paragraphs"]


def test_no_match_names_the_key(folder):
    with pytest.raises(UserError, match=r"corpus\.location.*nothing"):
        texts(folder / "nothing-*.txt")


def test_unknown_suffix_is_named(folder):
    with pytest.raises(UserError, match=r"notes\.md"):
        texts(folder / "notes.md")


@pytest.mark.parametrize("name", ["a.jsonl", "sub/c.parquet"])
def test_missing_column_is_named(folder, name):
    with pytest.raises(UserError, match=r"'body' \(corpus\.column\)"):
        texts(folder / name, column="body")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": ', r"x\.jsonl:2: not valid JSON"),
        ("x.jsonl", b'{"text": 3}\n', r"x\.jsonl:1: 'text': found int, expected text"),
        ("x.txt", b"\xff\xfe", r"x\.txt: not UTF-8"),
        ("x.parquet", b"PAR1 cut", r"x\.parquet: not a readable Parquet"),
    ],
)
def test_unreadable_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        texts(tmp_path / name)


def test_unknown_source_is_named(tmp_path):
    with pytest.raises(UserError, match=r"corpus\.source.*'web'"):
        open_source(spec(tmp_path, source="web"))


def test_hub_data_set_is_streamed_in_order(tmp_path):
    rows = [{"text": f"document {i}"} for i in range(5)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert texts(tmp_path, source="hub") == [row["text"] for row in rows]
    with pytest.raises(UserError, match=r"corpus\.column: found 'body'"):
        texts(tmp_path, source="hub", column="body")


def test_hub_data_set_that_cannot_be_had_names_the_key(tmp_path):
    with pytest.raises(UserError, match=r"corpus\.location: cannot read the Hub data set") as error:
        texts(tmp_path / "absent", source="hub", revision="abc")
    assert "\n" not in str(error.value)


def test_where_each_document_is_from(folder):
    found = [(document.text, document.origin) for document in open_source(spec(folder)).documents]
    assert found == [
        ("line one", (folder / "a.jsonl").as_posix()),
        ("line two", (folder / "a.jsonl").as_posix()),
        ("plain text\n\nof two paragraphs", (folder / "b.txt").as_posix()),
        ("cell one", (folder / "sub" / "c.parquet").as_posix()),
        ("cell two", (folder / "sub" / "c.parquet").as_posix()),
    ]
    (folder / "sub" / "train.jsonl").write_text('{"text": "of the Hub"}\n')
    hub = open_source(spec(folder / "sub", source="hub")).documents
    assert [document.origin for document in hub if document.text == "of the Hub"] in ([None], [])
