"""A user's own labels of documents or tokens, from a Parquet or JSONL file.

A row labels a document, or with `position` one token of it. The document is named by its number in the corpus
(`document`, the place in the source, from 0) or by its whole text (`text`):

    {"text": "…", "label": "about money"}
    {"document": 17, "position": 5, "label": "name of a city"}

A document or token has at most one label; those that no row names have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expander_sae.activations.origins import Origins, text_sha256
from expander_sae.errors import UserError, first_line
from expander_sae.storage.files import without_doubles
from expander_sae.storage.parquet_files import require_column

_KEYS = ({"document", "label"}, {"text", "label"})

Labels = dict[tuple[int, int | None], str]
"""(document, position or None for all of it) → label."""


def read_user_labels(path: Path, origins: Origins) -> Labels:
    """The labels of documents that the token table has; others of the source may be named, and are left out.

    Raises:
        UserError: the file, its row, what was found there and what was expected.
    """
    numbers = {sha256: number for number, (_, sha256) in origins.by_number.items()}
    found: Labels = {}
    columns: Set[str] | None = None
    for where, row in _rows(path):
        _check(row, where)
        columns = row.keys() if columns is None else columns
        if row.keys() != columns:
            raise UserError(
                f"{where}: found keys {_listed(row)}, expected {_listed(columns)} as in the first row"
            )
        number = row["document"] if "document" in row else numbers.get(text_sha256(row["text"]))
        if number not in origins.by_number:
            continue
        key = (number, row.get("position"))
        if key in found:
            raise UserError(f"{where}: found a second label for {_named(row)}, expected one")
        found[key] = str(row["label"])
    if not found:
        raise UserError(f"{path}: found no row for a document of the token table, expected at least one")
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and row, as messages name them; the row)."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for name in file.schema_arrow.names:
                    require_column(file.schema_arrow.names, name, f"{path}")
                rows = file.read().to_pylist()
            yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows))
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield f"{path}:{number}", json.loads(line, object_pairs_hook=without_doubles)
        else:
            raise UserError(f"evaluation.labels: found {path}, expected a file ending in .parquet or .jsonl")
    except FileNotFoundError:
        raise UserError(f"evaluation.labels: found no file {path}, expected one") from None
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{path}: not readable as {path.suffix[1:]} ({first_line(error)})") from None


def _check(row: Any, where: str) -> None:
    if not isinstance(row, dict) or row.keys() - {"position"} not in _KEYS:
        found = _listed(row) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{where}: found {found}, expected label, document or text, and maybe position")
    for key, value in row.items():
        number = isinstance(value, int) and not isinstance(value, bool)
        fits = {
            "label": number or (isinstance(value, str) and bool(value)),
            "text": isinstance(value, str),
        }.get(key, number and value >= 0)
        if not fits:
            expected = {"label": "a text or a whole number", "text": "a text"}.get(
                key, "a whole number from 0"
            )
            raise UserError(f"{where}: {key}: found {value!r}, expected {expected}")


def _listed(keys: Any) -> str:
    return ", ".join(sorted(map(str, keys))) or "none"


def _named(row: dict[str, Any]) -> str:
    document = row["document"] if "document" in row else repr(row["text"][:40])
    return f"document {document}" + (f", position {row['position']}" if "position" in row else "")
