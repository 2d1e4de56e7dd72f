"""Activation shards: Parquet files of document, position, token id and activation.

Two checksums stand in a shard: a seal over every byte of the file, and the sha256 of its rows, which
names its content wherever it is used (`Pool.prefix_digest`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expander_sae.errors import UserError, first_line
from expander_sae.machine.piece_sizes import ROW_GROUP
from expander_sae.storage.files import AGAIN
from expander_sae.storage.parquet_files import open_sealed, rows_of_lists, sealed_writer

_KEY = b"expander_sae"
_ABOUT = {"m": int, "tokens": int, "sha256": str}


@dataclass(frozen=True)
class Rows:
    """document int32[N], position int16[N], token_id int32[N], activation float32[N,m]."""

    document: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    activation: np.ndarray

    def __len__(self) -> int:
        return len(self.document)

    @property
    def of_tokens(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All columns but the activations."""
        return self.document, self.position, self.token_id


def write_shard(path: Path, rows: Rows, about: dict[str, Any]) -> None:
    """Write a shard atomically; `about`, a sha256 of the rows and a seal go into its metadata."""
    m = rows.activation.shape[1]
    pieces = [slice(start, start + ROW_GROUP) for start in range(0, len(rows), ROW_GROUP)]
    parts = [Rows(*(column[piece] for column in (*rows.of_tokens, rows.activation))) for piece in pieces]
    checksum = _Checksum()
    for part in parts:
        _require_finite(part.activation, path)
        checksum.update(part)
    record = {**about, "m": m, "tokens": len(rows), "sha256": checksum.hexdigest()}
    schema = pa.schema(
        [
            ("document", pa.int32()),
            ("position", pa.int16()),
            ("token_id", pa.int32()),
            ("activation", pa.list_(pa.float32(), m)),
        ]
    ).with_metadata({_KEY: json.dumps(record, sort_keys=True)})
    with sealed_writer(path, schema, compression="none", use_dictionary=False) as writer:
        for part in parts:
            flat = pa.array(np.ascontiguousarray(part.activation).reshape(-1), pa.float32())
            activation = pa.FixedSizeListArray.from_arrays(flat, m)
            table = pa.table([*part.of_tokens, activation], schema=schema)
            writer.write_table(table, row_group_size=ROW_GROUP)


def _require_finite(activation: np.ndarray, path: Path) -> None:
    if not np.isfinite(activation).all():
        raise UserError(f"{path}: found activations that are not finite (NaN or infinity), expected numbers")


class Shard:
    """A shard on disk. `about` is its metadata; the rows are read group by group.

    Every byte is checked against the seal before anything is parsed (about 20 ms for 40 MB), but where
    `verify` says that this has been done.
    """

    def __init__(self, path: str | Path, verify: bool = True) -> None:
        self.path = Path(path)
        try:
            self._file = open_sealed(path) if verify else pq.ParquetFile(path)
            self.about: dict[str, Any] = json.loads((self._file.schema_arrow.metadata or {})[_KEY])
            _check_about(self.about)
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: not a whole activation shard ({first_line(error)}); {AGAIN}") from None
        self.tokens: int = self.about["tokens"]
        self.m: int = self.about["m"]
        found = self._file.metadata.num_rows
        if found != self.tokens:
            raise UserError(f"{path}: found {found} tokens, expected {self.tokens}; {AGAIN}")

    def row_groups(self) -> Iterator[Rows]:
        """The rows, some thousands at a time; their checksum is compared at the end."""
        checksum = _Checksum()
        for group in range(self._file.metadata.num_row_groups):
            rows = self.row_group(group)
            checksum.update(rows)
            yield rows
        if checksum.hexdigest() != self.about["sha256"]:
            raise UserError(f"{self.path}: altered (its sha256 is not the recorded one); {AGAIN}")

    def row_group(self, group: int) -> Rows:
        """Rows [group · ROW_GROUP, (group + 1) · ROW_GROUP), finite ones."""
        try:
            table = self._file.read_row_group(group)
            lists = table["activation"].combine_chunks()
            activation = rows_of_lists(lists, f"{self.path}: column 'activation'", self.m)
            columns = [table[name].to_numpy() for name in ("document", "position", "token_id")]
            rows = Rows(*[*columns, activation])
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: unreadable ({first_line(error)}); {AGAIN}") from None
        _require_finite(rows.activation, self.path)
        return rows


def about_of(path: str | Path) -> dict[str, Any]:
    """The metadata of a shard, of which nothing else is read or checked yet."""
    return Shard(path, verify=False).about


def _check_about(about: Any) -> None:
    if not isinstance(about, dict):
        raise ValueError(f"found {type(about).__name__}, expected a mapping")
    for key, kind in _ABOUT.items():
        if type(about.get(key)) is not kind:
            raise ValueError(f"{key}: found {about.get(key)!r}, expected {kind.__name__}")


class _Checksum:
    """sha256 of each column over the row groups, then of the four together."""

    def __init__(self) -> None:
        self._columns = [hashlib.sha256() for _ in range(4)]

    def update(self, rows: Rows) -> None:
        for column, values in zip(self._columns, (*rows.of_tokens, rows.activation), strict=True):
            column.update(np.ascontiguousarray(values).data)

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(column.digest() for column in self._columns)).hexdigest()
