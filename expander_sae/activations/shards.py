"""Activation shards: Parquet files of document, position, token id and activation.

Two checksums stand in a shard: a seal over every byte of the file, and the sha256 of its rows, which
names its content wherever it is used (`Pool.prefix_digest`).

Activations are lists of float32, or, in half the bytes, strings of the bytes of bfloat16: 8 bits of each
number, within 2⁻⁹ of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expander_sae.activations.receipts import is_receipt, read_receipt
from expander_sae.errors import UserError, first_line
from expander_sae.machine.piece_sizes import ROW_GROUP
from expander_sae.storage import bfloat16
from expander_sae.storage.files import AGAIN
from expander_sae.storage.parquet_files import open_sealed, rows_of_lists, sealed_writer
from expander_sae.storage.remote import Place, is_remote, opened, place

FLOAT32, BFLOAT16 = "float32", "bfloat16"
"""What `tokens.stored` may say."""

_KEY = "expander_sae"
_OPTIONS: dict[str, Any] = {"compression": "none", "use_dictionary": False}
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


def write_shard(path: Place, rows: Rows, about: dict[str, Any], stored: str = FLOAT32) -> None:
    """Write a shard atomically; `about`, a sha256 of the rows and a seal go into its metadata.

    Args:
        stored: `FLOAT32`, or `BFLOAT16`, to which activations are rounded before they are hashed.
    """
    m, checksum = rows.activation.shape[1], _Checksum()
    parts = [_as_stored(part, stored, path) for part in _parts(rows)]
    for part in parts:
        checksum.update(part)
    record = _record(about, m, len(rows), stored, checksum)
    schema = _schema(m, stored).with_metadata(record)
    with sealed_writer(path, schema, **_OPTIONS) as writer:
        for part in parts:
            writer.write_table(_table(part, schema, stored), row_group_size=ROW_GROUP)


@contextmanager
def shard_writer(
    path: Place, m: int, about: dict[str, Any], stored: str = FLOAT32
) -> Iterator[Callable[[Rows], None]]:
    """Writes a shard of any length, atomically: the block gives its rows in parts of whole row groups.

    It holds what `write_shard` writes; its metadata, not known before the end, stand in the footer alone.
    """
    schema, checksum, tokens, record = _schema(m, stored), _Checksum(), 0, dict[str, str]()
    with sealed_writer(path, schema, record, **_OPTIONS) as writer:

        def write(rows: Rows) -> None:
            nonlocal tokens
            if tokens % ROW_GROUP:
                raise ValueError(f"{path}: found rows after a row group that is not full, expected none")
            tokens += len(rows)
            for part in _parts(rows):
                part = _as_stored(part, stored, path)
                checksum.update(part)
                writer.write_table(_table(part, schema, stored), row_group_size=ROW_GROUP)

        yield write
        record |= _record(about, m, tokens, stored, checksum)


def _parts(rows: Rows) -> Iterator[Rows]:
    """The rows a row group at a time."""
    for start in range(0, len(rows), ROW_GROUP):
        yield Rows(*(column[start : start + ROW_GROUP] for column in (*rows.of_tokens, rows.activation)))


def _as_stored(rows: Rows, stored: str, path: Place) -> Rows:
    """The rows with activations rounded to what the file holds, and finite."""
    _require_finite(rows.activation, path)
    if stored != BFLOAT16:
        return rows
    wide = bfloat16.widened(bfloat16.rounded(rows.activation))
    _require_finite(wide, path)
    return Rows(*rows.of_tokens, wide)


def _record(about: dict[str, Any], m: int, tokens: int, stored: str, checksum: _Checksum) -> dict[str, str]:
    record = {**about, "m": m, "tokens": tokens, "sha256": checksum.hexdigest()}
    record |= {"stored": BFLOAT16} if stored == BFLOAT16 else {}
    return {_KEY: json.dumps(record, sort_keys=True)}


def _schema(m: int, stored: str) -> pa.Schema:
    kind = pa.binary(2 * m) if stored == BFLOAT16 else pa.list_(pa.float32(), m)
    columns = {"document": pa.int32(), "position": pa.int16(), "token_id": pa.int32(), "activation": kind}
    return pa.schema(columns)


def _table(rows: Rows, schema: pa.Schema, stored: str) -> pa.Table:
    activation = _halves(rows.activation) if stored == BFLOAT16 else _lists(rows.activation)
    return pa.table([*rows.of_tokens, activation], schema=schema)


def _lists(activation: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(activation).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, activation.shape[1])


def _halves(activation: np.ndarray) -> pa.Array:
    data = pa.py_buffer(bfloat16.rounded(activation))
    return pa.Array.from_buffers(pa.binary(2 * activation.shape[1]), len(activation), [None, data])


def _require_finite(activation: np.ndarray, path: Place) -> None:
    if not np.isfinite(activation).all():
        raise UserError(f"{path}: found activations that are not finite (NaN or infinity), expected numbers")


class Shard:
    """A shard, at a path, at an address, or where a receipt says. `about` is its metadata; the rows are read
    group by group.

    Every byte is checked against the seal before anything is parsed (about 20 ms for 40 MB), but where
    `verify` says that this has been done, or that its metadata are enough. For the check a remote shard is
    fetched, whole.
    """

    def __init__(self, path: Place, verify: bool = True) -> None:
        path, received = read_receipt(path) if is_receipt(path) else (place(path), None)
        self.path = path
        with _whole(path):
            self._file = open_sealed(path) if verify else pq.ParquetFile(_unchecked(path))
            self.about: dict[str, Any] = metadata_of(self._file)
            _check_about(self.about)
        self.tokens: int = self.about["tokens"]
        self.m: int = self.about["m"]
        if received is not None and self.about != received:
            raise UserError(f"{path}: found another shard than its receipt tells of; {AGAIN}")
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
            column = table["activation"].combine_chunks()
            activation = activations_of(column, f"{self.path}: column 'activation'", self.about, self.m)
            columns = [table[name].to_numpy() for name in ("document", "position", "token_id")]
            rows = Rows(*[*columns, activation])
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: unreadable ({first_line(error)}); {AGAIN}") from None
        _require_finite(rows.activation, self.path)
        return rows


def metadata_of(file: pq.ParquetFile) -> Any:
    """What a shard says of itself; {} of another library's file."""
    return json.loads((file.metadata.metadata or {}).get(_KEY.encode(), b"{}"))


def stored_in(about: Any) -> str:
    """How a file with this metadata holds activations; another library's file has none of ours."""
    return about.get("stored", FLOAT32) if isinstance(about, dict) else FLOAT32


def activations_of(
    column: pa.Array, where: str, about: Any, m: int | None = None, first: int = 0
) -> np.ndarray:
    """float32 [N, m] of a column of activations in a file with this metadata; see `rows_of_lists`."""
    if stored_in(about) != BFLOAT16:
        return rows_of_lists(column, where, m, first)
    width = column.type.byte_width if pa.types.is_fixed_size_binary(column.type) else 0
    if width % 2 or not width or (m is not None and width != 2 * m) or column.null_count:
        expected = "strings of 2 bytes for each number" if m is None else f"whole strings of {2 * m} bytes"
        raise UserError(f"{where}: holds {column.type} with {column.null_count} nulls, expected {expected}")
    data = np.frombuffer(column.buffers()[1], "<u2", len(column) * width // 2, column.offset * width)
    return bfloat16.widened(data).reshape(len(column), width // 2)


def about_of(path: Place) -> dict[str, Any]:
    """The metadata of a shard, of which nothing else is read or checked yet; what a receipt says of it."""
    return read_receipt(path)[1] if is_receipt(path) else Shard(path, verify=False).about


def _unchecked(path: Place) -> Any:
    return opened(str(path)) if is_remote(path) else path


@contextmanager
def _whole(path: Place) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a whole activation shard ({first_line(error)}); {AGAIN}") from None


def _check_about(about: Any) -> None:
    if not isinstance(about, dict):
        raise ValueError(f"found {type(about).__name__}, expected a mapping")
    if stored_in(about) not in (FLOAT32, BFLOAT16):
        raise ValueError(f"stored: found {about['stored']!r}, expected {FLOAT32} or {BFLOAT16}")
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
