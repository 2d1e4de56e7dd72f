"""Where texts come from: docstrings or code of the dependencies, a Hub data set, or local files."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from expander_sae.activations.package_texts import PACKAGES, TEXTS_OF, read_package_texts
from expander_sae.activations.python_texts import LONE_SURROGATE
from expander_sae.errors import UserError, first_line
from expander_sae.rng import Integers
from expander_sae.storage.files import without_doubles
from expander_sae.storage.locations import files_of
from expander_sae.storage.parquet_files import require_column

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")


class Text(NamedTuple):
    """A document, and where it is from: its package or its file; None for a data set of the Hub."""

    text: str
    origin: str | None


@dataclass(frozen=True)
class Source:
    """Documents in the corpus's fixed order, and what `corpus.json` says of where they came from."""

    documents: Iterable[Text]
    description: dict[str, Any]


def open_source(spec: dict[str, Any]) -> Source:
    """The source of a corpus spec. Hub and file sources are read as they are consumed."""
    if spec["source"] in TEXTS_OF:
        return _of_packages(spec["source"], spec["location"], spec["data_seed"])
    if spec["source"] == "hub":
        return Source((Text(text, None) for text in _hub(spec)), {"revision": spec["revision"]})
    if spec["source"] == "files":
        paths = _matching_files(spec["location"])
        return Source(_files(paths, spec["column"]), {"files": len(paths)})
    raise UserError(f"corpus.source: found {spec['source']!r}, expected docstrings, code, hub or files")


def _of_packages(source: str, package: str | None, data_seed: int) -> Source:
    """Texts of one of the packages, or of all of them, in an order of the seed's."""
    if package is not None and package not in PACKAGES:
        raise UserError(f"corpus.location: found {package!r}, expected null or one of {', '.join(PACKAGES)}")
    packages = tuple(PACKAGES) if package is None else (package,)
    corpus = read_package_texts(source, packages)
    order = Integers(data_seed, "corpus").permutation(len(corpus.texts))
    about = {name: {"version": corpus.versions[name], "licence": PACKAGES[name]} for name in packages}
    count = len(corpus.texts)
    description = {"packages": about, "documents_available": count, "sha256": corpus.sha256}
    return Source((Text(corpus.texts[place], corpus.packages[place]) for place in order), description)


def _hub(spec: dict[str, Any]) -> Iterator[str]:
    from datasets import load_dataset

    name = f"{spec['location']!r}" + (f" at revision {spec['revision']}" if spec["revision"] else "")
    try:
        rows = load_dataset(
            spec["location"], spec["subset"], split=spec["split"], revision=spec["revision"], streaming=True
        )
        for number, row in enumerate(rows, start=1):
            if spec["column"] not in row:
                names = ", ".join(sorted(row))
                raise UserError(f"corpus.column: found {spec['column']!r}, expected one of {names}")
            where = f"corpus.location: {name}: row {number}: column {spec['column']!r}"
            yield from _text(row[spec["column"]], where)
    except UserError:
        raise
    except Exception as error:  # the library raises dozens of kinds: network, gating, format
        found = f"cannot read the Hub data set {name} ({first_line(error)})"
        advice = "check the name, the revision and the network, set HF_TOKEN if it is gated"
        local = "or use source: files with a local copy"
        raise UserError(f"corpus.location: {found}; {advice}, {local}") from error


def _matching_files(location: str) -> list[Path]:
    """Files of a path, folder or pattern, sorted; each is one of those that are read."""
    files = sorted(map(Path, files_of(location)), key=lambda file: file.as_posix())
    if not files:
        raise UserError(f"corpus.location: found no files at {location!r}, expected {', '.join(SUFFIXES)}")
    for file in files:
        if not file.is_file():
            what = "a link to nothing" if file.is_symlink() else "no ordinary file"
            raise UserError(f"corpus.location: found {file}, {what}; expected files that can be read")
        if _kind(file) not in SUFFIXES:
            only = "move it away, or name the others by a pattern such as texts/**/*.jsonl"
            expected = f"expected files ending in {', '.join(SUFFIXES)}"
            raise UserError(f"corpus.location: found {file}, {expected}; {only}")
    return files


def _kind(file: Path) -> str:
    """How the file's name ends, in lower case, with what stands before ``.gz``."""
    ending = file.suffix.lower()
    return Path(file.stem).suffix.lower() + ending if ending == ".gz" else ending


def _files(paths: list[Path], column: str) -> Iterator[Text]:
    for path in paths:
        read = _parquet_file if _kind(path) == ".parquet" else _text_file
        read = _json_lines if _kind(path).startswith(".jsonl") else read
        try:
            for text in read(path, column):
                # A name may hold bytes that are no text.
                yield Text(text, path.as_posix().encode(errors="backslashreplace").decode())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path}: not a whole gzip file ({first_line(error)})") from None


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """The bytes of a file, unpacked where it is compressed."""
    return gzip.open(path) if _kind(path).endswith(".gz") else path.open("rb")


def _decoded(raw: bytes, where: str) -> str:
    """UTF-8 as text, without the mark that some programs put first."""
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _text_file(path: Path, column: str) -> Iterator[str]:
    with _opened(path) as stream:
        yield _decoded(stream.read(), str(path)).replace("\r\n", "\n").replace("\r", "\n")


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with _opened(path) as lines:
        for number, raw in enumerate(lines, start=1):
            line = _decoded(raw, f"{path}:{number}")
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=without_doubles)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}:{number}: not valid JSON ({error})") from None
            if not isinstance(row, dict) or column not in row:
                raise UserError(f"{path}:{number}: no key {column!r} (corpus.column)")
            yield from _text(row[column], f"{path}:{number}: {column!r}")


def _parquet_file(path: Path, column: str) -> Iterator[str]:
    number = 0
    try:
        with pq.ParquetFile(path) as table:
            if column not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names)
                raise UserError(f"{path}: no column {column!r} (corpus.column), found {names}")
            require_column(table.schema_arrow.names, column, f"{path}")
            for batch in table.iter_batches(batch_size=256, columns=[column]):
                for cell in batch.column(0):
                    number += 1
                    yield from _text(cell.as_py(), f"{path}: row {number}: column {column!r}")
    except UnicodeDecodeError as error:
        where = f"{path}: row {number}: column {column!r}"
        raise UserError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def _text(value: Any, where: str) -> Iterator[str]:
    """The text of a cell; an empty cell is no document, what is no text is an error."""
    if value is None:
        return
    if not isinstance(value, str):
        raise UserError(f"{where}: found {type(value).__name__}, expected text")
    if found := LONE_SURROGATE.search(value):
        code = f"\\u{ord(found[0]):04x}"
        raise UserError(
            f"{where}: found {code}, half of a character, which no tokenizer takes; expected text"
        )
    yield value
