"""Where texts come from: docstrings of the dependencies, a Hub data set, or local files."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from expander_sae.activations.docstrings import PACKAGES, read_docstrings
from expander_sae.errors import UserError, first_line
from expander_sae.rng import Integers

SUFFIXES = (".txt", ".jsonl", ".parquet")


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
    if spec["source"] == "docstrings":
        return _docstrings(spec["location"], spec["data_seed"])
    if spec["source"] == "hub":
        return Source((Text(text, None) for text in _hub(spec)), {"revision": spec["revision"]})
    if spec["source"] == "files":
        paths = _matching_files(spec["location"])
        return Source(_files(paths, spec["column"]), {"files": len(paths)})
    raise UserError(f"corpus.source: found {spec['source']!r}, expected docstrings, hub or files")


def _docstrings(package: str | None, data_seed: int) -> Source:
    """Docstrings of one of the packages, or of all of them, in an order of the seed's."""
    if package is not None and package not in PACKAGES:
        raise UserError(f"corpus.location: found {package!r}, expected null or one of {', '.join(PACKAGES)}")
    packages = tuple(PACKAGES) if package is None else (package,)
    corpus = read_docstrings(packages)
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
        for row in rows:
            if spec["column"] not in row:
                names = ", ".join(sorted(row))
                raise UserError(f"corpus.column: found {spec['column']!r}, expected one of {names}")
            yield from _strings([row[spec["column"]]], f"corpus.column {spec['column']!r}")
    except UserError:
        raise
    except Exception as error:  # the library raises dozens of kinds: network, gating, format
        found = f"cannot read the Hub data set {name} ({first_line(error)})"
        advice = "check the name, the revision and the network, set HF_TOKEN if it is gated"
        local = "or use source: files with a local copy"
        raise UserError(f"corpus.location: {found}; {advice}, {local}") from error


def _matching_files(location: str) -> list[Path]:
    """Files of a path, folder or glob, sorted."""
    path = Path(location)
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix in SUFFIXES]
    else:
        found = [Path(name) for name in glob.glob(location, recursive=True)]
    files = sorted((file for file in found if file.is_file()), key=lambda file: file.as_posix())
    if not files:
        raise UserError(f"corpus.location: found no files at {location!r}, expected {', '.join(SUFFIXES)}")
    for file in files:
        if file.suffix not in SUFFIXES:
            raise UserError(f"corpus.location: found {file}, expected files ending in {', '.join(SUFFIXES)}")
    return files


def _files(paths: list[Path], column: str) -> Iterator[Text]:
    readers = {".txt": _text_file, ".jsonl": _json_lines, ".parquet": _parquet_file}
    for path in paths:
        try:
            for text in readers[path.suffix](path, column):
                yield Text(text, path.as_posix())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _text_file(path: Path, column: str) -> Iterator[str]:
    yield path.read_text(encoding="utf-8")


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: not valid JSON ({error})") from None
            if not isinstance(row, dict) or column not in row:
                raise UserError(f"{path}:{number}: no key {column!r} (corpus.column)")
            yield from _strings([row[column]], f"{path}:{number}: {column!r}")


def _parquet_file(path: Path, column: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as table:
            if column not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names)
                raise UserError(f"{path}: no column {column!r} (corpus.column), found {names}")
            for batch in table.iter_batches(batch_size=256, columns=[column]):
                yield from _strings(batch.column(0).to_pylist(), f"{path}: column {column!r}")
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def _strings(values: Iterable[Any], where: str) -> Iterator[str]:
    """The texts among `values`; an empty cell is no document, another type is an error."""
    for value in values:
        if value is None:
            continue
        if not isinstance(value, str):
            raise UserError(f"{where}: found {type(value).__name__}, expected text")
        yield value
