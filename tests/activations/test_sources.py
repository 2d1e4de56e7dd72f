import gzip
import json
import os
import re

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


@pytest.mark.parametrize(
    "name", ["notes.md", "more.json", "more.jsonl.zst", "more.csv", "sub/more", "more.tar.gz"]
)
def test_no_file_of_a_folder_is_skipped_in_silence(folder, name):
    (folder / name).write_text('{"text": "a document"}')
    for location in (folder, folder / name, folder / "**"):
        with pytest.raises(UserError, match=rf"found .*{re.escape(name)}, expected files ending in \.txt, "):
            texts(location)


def test_a_link_to_nothing_and_what_is_no_file_are_named(tmp_path):
    (tmp_path / "gone.txt").symlink_to("nothing")
    with pytest.raises(UserError, match=r"gone\.txt, a link to nothing"):
        texts(tmp_path)
    (tmp_path / "gone.txt").unlink()
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt, no ordinary file"):
        texts(tmp_path)


def test_names_in_capitals_and_compressed_files_are_read(tmp_path):
    (tmp_path / "A.JSONL").write_text('{"text": "one"}\n')
    (tmp_path / "B.Txt").write_text("two")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}\n{"text": "four"}\n'))
    (tmp_path / "d.TXT.GZ").write_bytes(gzip.compress("fünf".encode()))
    pq.write_table(pa.table({"text": ["six"]}), tmp_path / "e.PARQUET")
    assert texts(tmp_path) == ["one", "two", "three", "four", "fünf", "six"]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}\n')[:-9])
    with pytest.raises(UserError, match=r"c\.jsonl\.gz: not a whole gzip file"):
        texts(tmp_path)
    (tmp_path / "c.jsonl.gz").write_bytes(b'{"text": "three"}\n')
    with pytest.raises(UserError, match=r"c\.jsonl\.gz: not a whole gzip file"):
        texts(tmp_path)


MARK = b"\xef\xbb\xbf"


def test_the_mark_that_some_programs_put_first_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(MARK + b"first")
    (tmp_path / "b.jsonl").write_bytes(MARK + b'{"text": "second"}\r\n' + MARK + b'{"text": "third"}\n')
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(MARK + b"fourth\r\nline\rend"))
    assert texts(tmp_path) == ["first", "second", "third", "fourth\nline\nend"]


def test_half_a_character_is_refused_with_its_file_and_line(tmp_path):
    """A lone surrogate, which JSON can say and no tokenizer takes."""
    (tmp_path / "a.jsonl").write_text('{"text": "whole \\ud83d\\ude00"}\n{"text": "half \\ud83d"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: 'text': found \\ud83d, half of a character"):
        texts(tmp_path / "a.jsonl")
    raw = pa.array([b"fine", b"bad \xed\xa0\xbd"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": raw}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet: row 2: column 'text': not UTF-8 text"):
        texts(tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "fine"}\n' * 3000 + b'{"text": "caf\xe9"}\n')
    with pytest.raises(
        UserError, match=r"c\.jsonl:3001: not UTF-8 text \(invalid continuation byte at byte 13\)"
    ):
        texts(tmp_path / "c.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "sub/c.parquet"])
def test_missing_column_is_named(folder, name):
    with pytest.raises(UserError, match=r"'body' \(corpus\.column\)"):
        texts(folder / name, column="body")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": ', r"x\.jsonl:2: not valid JSON"),
        (
            "x.jsonl",
            b'{"text": "a"}\n{"text": "b", "text": "c"}\n',
            r"x\.jsonl:2: .*key 'text' stands there twice",
        ),
        ("x.jsonl", b'{"text": 3}\n', r"x\.jsonl:1: 'text': found int, expected text"),
        ("x.txt", b"\xff\xfe", r"x\.txt: not UTF-8"),
        ("x.parquet", b"PAR1 cut", r"x\.parquet: not a readable Parquet"),
    ],
)
def test_unreadable_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        texts(tmp_path / name)


def test_two_columns_of_one_name_are_refused(tmp_path):
    """pyarrow gives the first."""
    pq.write_table(
        pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "x.parquet"
    )
    with pytest.raises(UserError, match=r"x\.parquet: found 2 columns 'text', expected one of that name"):
        texts(tmp_path / "x.parquet")
    pq.write_table(
        pa.table([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["text", "n", "n"]),
        tmp_path / "x.parquet",
    )
    assert texts(tmp_path / "x.parquet") == ["a"], "others do not matter"


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
