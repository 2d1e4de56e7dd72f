"""Corpora of odd texts, encodings and files: every text is read as it was written, or its place is named."""

from __future__ import annotations

import gzip
import json
import random
import re
import string
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.faults.inputs import attempt
from tests.faults.tally import Tally

_CONTEXT = 32
_MARK = b"\xef\xbb\xbf"
_BAD_VALUES = (1, 1.5, True, [], ["a"], {"a": "b"}, "half \ud83d", "\udc00", "x\udfffy")
_ENDINGS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet", ".JSONL", ".Txt.GZ", ".PARQUET")
_UNREAD = (".json", ".csv", ".jsonl.zst", ".md", ".zip", "", ".tar.gz", ".gz", ".parq", ".jsonl.bak")


def odd_corpora(folder: Path, model: Path, count: int, seed: int) -> dict[str, Any]:
    """Files from a seeded generator, with what must come of them; `model` is a folder with a tokenizer."""
    tally, draw = Tally("odd corpora"), random.Random(seed)
    from expander_sae.activations.language_model import tokenizer_of

    tokenizer = tokenizer_of({"path": str(model), "trust_remote_code": False, "name": "tiny"})
    for number in range(count):
        path = folder / f"corpus-{number}{draw.choice(_ENDINGS if draw.random() < 0.93 else _UNREAD)}"
        texts, said = _write(path, draw)
        attempt(
            tally, f"corpus {number} {path.name} {said!r} {texts!r:.300}", _read(path, texts, said, tokenizer)
        )
        path.unlink()
    return tally.as_dict()


def _text(draw: random.Random) -> str:
    """A document of one of many kinds."""
    size = draw.choice((0, 1, 7, 60, 400))
    how = draw.randrange(8)
    if how == 0:
        return " ".join(
            "".join(draw.choices(string.ascii_lowercase, k=draw.randint(1, 9))) for _ in range(size)
        )
    if how == 1:
        return "".join(chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(size))
    if how == 2:
        return "".join(draw.choices("ぁあアー、。 漢字", k=size))
    if how == 3:
        return "".join(draw.choices("😀👩‍👩‍👧é\u0301\u202e\ufeff\u2028\x85\0\x7f\t\n ", k=size))
    if how == 4:
        return "".join(draw.choices("ACGT", k=10 * size))
    if how == 5:
        return draw.choice(
            ("\ufeffmarked", " ", "\n\n", "null", "{}", '{"text": "x"}', "\\ud83d", "<|endoftext|>")
        )
    every = (
        chr(draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)))) for _ in range(size)
    )
    return "".join(every)


def _write(path: Path, draw: random.Random) -> tuple[list[str], str | None]:
    """(texts that are to be read, or what is to be said instead)."""
    name = path.name.lower()
    values: list[Any] = [_text(draw) if draw.random() < 0.9 else None for _ in range(draw.randint(1, 6))]
    bad = draw.randrange(len(values)) if draw.random() < 0.25 else None
    if ".jsonl" in name:
        raw, said = _json_lines(values, bad, draw)
    elif ".parquet" in name:
        return _parquet(path, values, bad, draw)
    else:
        text = _text(draw)
        values = [text.replace("\r\n", "\n").replace("\r", "\n")]
        values = [values[0].removeprefix("\ufeff")]
        raw, said = (
            (draw.choice((b"", _MARK)) if not text.startswith("\ufeff") else b"") + text.encode(),
            None,
        )
        if bad is not None:
            raw, said = raw + draw.choice((b"\xff", b"caf\xe9 ", b"\xed\xa0\x80")), "not UTF-8 text"
    if name.endswith(".gz"):
        raw = gzip.compress(raw)
        if bad is None and draw.random() < 0.1:
            raw, said = raw[: draw.randrange(1, len(raw))], "not a whole gzip file"
    path.write_bytes(raw)
    if not any(name.endswith(ending.lower()) for ending in _ENDINGS):
        said = "expected files ending in"
    return [value for value in values if value is not None], said


def _json_lines(values: list[Any], bad: int | None, draw: random.Random) -> tuple[bytes, str | None]:
    end = draw.choice((b"\n", b"\r\n", b"\n\n"))
    said, lines, step = None, [], end.count(b"\n")
    if bad is not None:
        values[bad] = draw.choice(_BAD_VALUES)
    for place, value in enumerate(values):
        plain = place != bad and draw.random() < 0.5
        line = json.dumps({"text": value, "other": 1}, ensure_ascii=not plain).encode()
        if place == bad:
            said = f":{1 + place * step}: "
            line = draw.choice((line, b'{"text": "caf\xe9"}', b"{", b"[1]", b'{"other": 1}', b'"text"'))
        lines.append(line + end)
    return draw.choice((b"", _MARK)) + b"".join(lines), said


def _parquet(
    path: Path, values: list[Any], bad: int | None, draw: random.Random
) -> tuple[list[str], str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    said, texts = None, [value for value in values if value is not None]
    if bad is None:
        column = pa.array(values, draw.choice((pa.string(), pa.large_string())))
        column = column.dictionary_encode() if draw.random() < 0.3 else column
    elif draw.random() < 0.5:
        values[bad], said = b"\xed\xa0\x80", f"row {bad + 1}: column 'text': not UTF-8 text"
        raw = [value.encode() if isinstance(value, str) else value for value in values]
        column = pa.array(raw, pa.binary()).cast(pa.string(), safe=False)
    else:
        column = pa.array([[value] for value in values], pa.list_(pa.string()))
        said = "row 1: column 'text': found list, expected text"
    pq.write_table(pa.table({"text": column, "other": list(range(len(values)))}), path)
    return texts, said


def _read(path: Path, texts: list[str], said: str | None, tokenizer: Any) -> Callable[[], None]:
    def use() -> None:
        from expander_sae.activations.sources import open_source
        from expander_sae.errors import UserError

        spec = {"source": "files", "location": str(path), "column": "text"}
        try:
            found = [document.text for document in open_source(spec).documents]
        except UserError as error:
            if said is None or said not in str(error) or path.name not in str(error):
                raise AssertionError(f"said {error}, expected {said}") from None
            raise
        if said is not None or found != texts:
            raise AssertionError(f"read {found!r:.300}, expected {said or texts!r:.300}")
        _judge(found, tokenizer)

    return use


def _judge(texts: list[str], tokenizer: Any) -> None:
    """Every document has its own tokens, and a second copy of it is not kept."""
    from expander_sae.activations.corpus import Splits, _tokenized
    from expander_sae.activations.sources import Text

    vocabulary = tokenizer.get_vocab()
    spec = {"name": "odd", "context": _CONTEXT, "min_tokens": 2, "max_overlap": 0.2, "data_seed": 0}
    needs = {"train": 10**6, "test": 10**6, "ce": 10**4, "shard": 10**6}
    special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)))
    documents = [Text(text, None) for text in texts * 2]
    kept = 0
    with TemporaryDirectory() as folder, ExitStack() as stack:
        splits = Splits(spec, needs, Path(folder), stack)
        for number, (text, _), ids in _tokenized(documents, tokenizer, _CONTEXT):
            expected = [vocabulary.get(character, 0) for character in text[:_CONTEXT]]
            if ids != expected and not special.search(text):
                raise AssertionError(f"document {number} has tokens {ids}, expected {expected}")
            added = splits.add(number, text, ids)
            if added and number >= len(texts):
                raise AssertionError(f"document {number} is a copy, and kept")
            kept += added
    if kept + sum(splits.dropped.values()) != 2 * len(texts):
        raise AssertionError(f"{kept} kept and {splits.dropped} dropped of {2 * len(texts)}")
