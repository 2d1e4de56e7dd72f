"""Parquet files: whole or absent, and sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expander_sae.errors import UserError
from expander_sae.storage.files import atomic_path
from expander_sae.storage.remote import Place, fetched
from expander_sae.storage.seals import KEY, UNSEALED, agree, check_seal, seal


@contextmanager
def sealed_writer(
    path: Place, schema: pa.Schema, about: Mapping[str, str] = MappingProxyType({}), **options: Any
) -> Iterator[pq.ParquetWriter]:
    """A writer whose file gets its seal and its name when the block ends without error.

    The texts of `about` stand in its footer; the options are those of `pyarrow.parquet.ParquetWriter`.
    """
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            yield writer
            # Beside the schema, which is stored twice, once encoded.
            writer.add_key_value_metadata({KEY: UNSEALED, **about})
        seal(temporary)


def open_sealed(path: Place, **options: Any) -> pq.ParquetFile:
    """A Parquet file, every byte of it checked against its seal where it has one.

    It is one file: names of folders above it are no columns of it, as they are where pyarrow reads tables.

    Raises:
        OSError, pyarrow.ArrowException: no Parquet file, or one whose seal is damaged.
    """
    with fetched(path) as copy:
        sealed = check_seal(copy, path)
        file = pq.ParquetFile(copy, **options)
    if not agree(sealed, file.metadata.metadata or {}):
        file.close()
        raise OSError("its seal is damaged")
    return file


def require_column(names: Sequence[str], column: str, where: str) -> None:
    """Raise `UserError` where a file's columns have the name more than once: any of them could be meant."""
    if (count := list(names).count(column)) > 1:
        raise UserError(f"{where}: found {count} columns {column!r}, expected one of that name")


def rows_of_lists(lists: pa.Array, where: str, m: int | None = None, first: int = 0) -> np.ndarray:
    """A column of lists of numbers as rows [N, m]; None for `m`: as many as the first list has.

    `first` is the number of the first row in its file, from 0. The numbers in all say nothing.

    Raises:
        UserError: no lists of numbers, a row that is null or of another length, or a null in a row; it names
            `where` and the first such row.
    """
    kind = lists.type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if listed else kind
    if not listed or not (pa.types.is_integer(inner) or pa.types.is_floating(inner)):
        raise UserError(f"{where}: holds {kind}, expected lists of m numbers")
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)  # NaN of a list that is null
    m = int(lengths[0]) if m is None and len(lengths) and not np.isnan(lengths[0]) else m
    wrong = np.flatnonzero(lengths != (-1 if m is None else m))
    if wrong.size:
        length = lengths[wrong[0]]
        found = "is null" if np.isnan(length) else f"has {length:.0f} numbers"
        expected = "a list" if m is None else f"{m} numbers in each row"
        raise UserError(f"{where}: row {first + wrong[0]} {found}, expected {expected}")
    flat = lists.flatten()
    if flat.null_count:
        row = first + int(np.flatnonzero(flat.is_null())[0]) // max(m or 1, 1)
        raise UserError(f"{where}: row {row} has a null among its numbers, expected a number")
    return flat.to_numpy(zero_copy_only=False).reshape(len(lists), m or 0)
