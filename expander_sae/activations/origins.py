"""`origins.parquet`: of each document of the token table, where it is from and the sha256 of its text.

Labels of documents are taken from it, since the token table has numbers alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa

from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN
from expander_sae.storage.parquet_files import open_sealed, sealed_writer

ORIGINS = "origins.parquet"
_SCHEMA = pa.schema({"document": pa.int32(), "origin": pa.string(), "sha256": pa.string()})


def text_sha256(text: str) -> str:
    """By which a document is found by its text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


class Origins:
    """Number of a document → (its package or file, None where neither is known; the sha256 of its text)."""

    def __init__(self) -> None:
        self.by_number: dict[int, tuple[str | None, str]] = {}

    def add(self, number: int, origin: str | None, text: str) -> None:
        self.by_number[number] = origin, text_sha256(text)

    def write(self, path: Path) -> None:
        """Write them in the order of their numbers."""
        numbers = sorted(self.by_number)
        columns = [
            numbers,
            [self.by_number[number][0] for number in numbers],
            [self.by_number[number][1] for number in numbers],
        ]
        with sealed_writer(path, _SCHEMA, compression="zstd") as writer:
            writer.write_table(pa.table(columns, schema=_SCHEMA))

    @classmethod
    def read(cls, path: Path) -> Origins:
        """Those that `write` wrote; raises `UserError` naming the file where it is not whole."""
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
