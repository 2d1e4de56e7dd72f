"""`origins.parquet`: of each document of the token table, where it is from and the sha256 of its text.

Labels of documents are taken from it, since the token table has numbers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN
from expander_sae.storage.parquet_files import open_sealed, sealed_writer

ORIGINS = "origins.parquet"
_ROW_GROUP = 1 << 14
_SCHEMA = pa.schema({"document": pa.int32(), "origin": pa.string(), "sha256": pa.string()})


def text_sha256(text: str) -> str:
    """By which a document is found by its text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


class OriginsWriter:
    """Writes documents in the order of their numbers, in which they have to be added."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._rows: list[tuple[int, str | None, str]] = []

    @classmethod
    @contextmanager
    def to(cls, path: Path) -> Iterator[OriginsWriter]:
        """One whose file is there, whole, when the block has ended without error."""
        with sealed_writer(path, _SCHEMA, compression="zstd") as writer:
            found = cls(writer)
            yield found
            found._flush()

    def add(self, number: int, origin: str | None, text: str) -> None:
        """Add a document: its package or its file, None where neither is known."""
        self._rows.append((number, origin, text_sha256(text)))
        if len(self._rows) == _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.table([*map(list, zip(*self._rows, strict=True))], schema=_SCHEMA))
        self._rows = []


class Origins:
    """Number of a document → (its package or file, None where neither is known; the sha256 of its text)."""

    def __init__(self) -> None:
        self.by_number: dict[int, tuple[str | None, str]] = {}

    @classmethod
    def read(cls, path: Path) -> Origins:
        """Those that were written; raises `UserError` naming the file where it is not whole."""
        try:
            with open_sealed(path) as file:
                table = file.read(list(_SCHEMA.names)).to_pydict()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a readable table of origins ({error}); {AGAIN}") from None
        found = cls()
        found.by_number = dict(
            zip(table["document"], zip(table["origin"], table["sha256"], strict=True), strict=True)
        )
        return found
