"""Parquet files: whole or absent, and sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expander_sae.storage.files import atomic_path
from expander_sae.storage.seals import KEY, UNSEALED, agree, check_seal, seal


@contextmanager
def sealed_writer(
    path: str | Path, schema: pa.Schema, about: Mapping[str, str] = MappingProxyType({}), **options: Any
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


def open_sealed(path: str | Path, **options: Any) -> pq.ParquetFile:
    """A Parquet file, every byte of it checked against its seal where it has one.

    It is one file: names of folders above it are no columns of it, as they are where pyarrow reads tables.

    Raises:
        OSError, pyarrow.ArrowException: no Parquet file, or one whose seal is damaged.
    """
    sealed = check_seal(path)
    file = pq.ParquetFile(path, **options)
    if not agree(sealed, file.metadata.metadata or {}):
        file.close()
        raise OSError("its seal is damaged")
    return file
