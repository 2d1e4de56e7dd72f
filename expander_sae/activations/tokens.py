"""`tokens.parquet`: documents, splits and token ids; read by token range, never whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from expander_sae.activations.splits import SPLITS
from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN
from expander_sae.storage.parquet_files import open_sealed, sealed_writer
from expander_sae.storage.remote import Place, place

_COLUMNS = {"document": pa.int32(), "position": pa.int16(), "token_id": pa.int32()}
_SCHEMA = pa.schema({"split": pa.dictionary(pa.int8(), pa.string()), **_COLUMNS})
_ROW_GROUP = 1 << 16
MOST_POSITIONS = 1 << 15
"""Tokens of a document, whose positions are int16 in every file: the most that `corpus.context` may be."""


@dataclass(frozen=True)
class TokenizedDocument:
    """Token ids of one document; `number` is its place in the source, unique over all splits."""

    number: int
    token_ids: list[int]


def write_token_table(path: Place, documents: dict[str, list[TokenizedDocument]]) -> None:
    """Write the splits one after the other, each in document order, atomically.

    Raises:
        UserError: a document of more tokens than positions have numbers.
    """
    splits = tuple(documents)
    longest = max((len(document.token_ids) for split in splits for document in documents[split]), default=0)
    if longest > MOST_POSITIONS:
        raise UserError(f"{path}: found a document of {longest} tokens, expected at most {MOST_POSITIONS}")
    counts = [sum(len(document.token_ids) for document in documents[split]) for split in splits]
    starts = dict(zip(splits, zip(accumulate(counts, initial=0), counts, strict=False), strict=True))
    schema = _SCHEMA.with_metadata({"splits": json.dumps(starts)})
    with sealed_writer(path, schema, compression="zstd") as writer:
        for split in splits:
            for chunk in _chunks(documents[split]):
                writer.write_table(_table(split, splits, chunk, schema), row_group_size=_ROW_GROUP)


def _chunks(documents: Sequence[TokenizedDocument]) -> list[list[TokenizedDocument]]:
    chunks: list[list[TokenizedDocument]] = []
    filled = _ROW_GROUP
    for document in documents:
        if filled >= _ROW_GROUP:
            chunks.append([])
            filled = 0
        chunks[-1].append(document)
        filled += len(document.token_ids)
    return chunks


def _table(
    split: str, splits: tuple[str, ...], documents: list[TokenizedDocument], schema: pa.Schema
) -> pa.Table:
    lengths = np.array([len(document.token_ids) for document in documents])
    total = int(lengths.sum())
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    codes = pa.array(np.full(total, splits.index(split), np.int8))
    columns = [
        pa.DictionaryArray.from_arrays(codes, pa.array(splits)),
        np.repeat(np.array([document.number for document in documents], np.int32), lengths),
        (np.arange(total) - starts).astype(np.int16),
        np.concatenate([np.array(document.token_ids, np.int32) for document in documents]),
    ]
    return pa.table(columns, schema=schema)


@dataclass(frozen=True)
class TokenRange:
    """Tokens [start, stop) of a split, preceded by the `context` earlier tokens of the first document.

    The columns are int32, int16 and int32 [context + (stop − start)]: the model must see a document from its
    beginning, whatever the range keeps of it.
    """

    document: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    context: int

    @property
    def sha256(self) -> str:
        """Hash of everything in the range: equal hashes, equal activations."""
        checksum = hashlib.sha256(str(self.context).encode())
        for column in (self.document, self.position, self.token_id):
            checksum.update(np.ascontiguousarray(column).data)
        return checksum.hexdigest()


class TokenTable:
    """Reads token ranges of one split from `tokens.parquet`."""

    def __init__(self, path: Place) -> None:
        self.path = place(path)
        try:
            self._file = open_sealed(path)
            about = self._file.metadata
            self._splits = _checked_splits(
                json.loads(self._file.schema_arrow.metadata[b"splits"]), about.num_rows
            )
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError):
            raise UserError(f"{path}: not a whole token table; {AGAIN}") from None
        groups = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(groups)]).astype(np.int64)

    def tokens(self, split: str) -> int:
        """Number of tokens of a split."""
        return self._splits[split][1]

    @property
    def longest(self) -> int:
        """Tokens of the longest document; 0 where there is none."""
        metadata = self._file.metadata
        column = self._file.schema_arrow.get_field_index("position")
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        return 1 + max(
            (group.column(column).statistics.max for group in groups if group.num_rows), default=-1
        )

    def read(self, split: str, start: int, stop: int) -> TokenRange:
        """Tokens [start, min(stop, available)) of a split; empty where the split ends before."""
        first, count = self._splits[split]
        start, stop = min(start, count), min(stop, count)
        if start == stop:
            return TokenRange(*self._rows(0, 0), 0)
        context = int(self._rows(first + start, first + start + 1)[1][0])
        return TokenRange(*self._rows(first + start - context, first + stop), context)

    def _rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns of rows [start, stop), reading only the row groups that hold them."""
        low = int(np.searchsorted(self._group_starts, start, side="right")) - 1
        high = int(np.searchsorted(self._group_starts, stop, side="left"))
        groups = list(range(low, max(high, low))) if stop > start else []
        try:
            table = self._file.read_row_groups(groups, columns=list(_COLUMNS))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.path}: unreadable ({error}); {AGAIN}") from None
        offset = start - int(self._group_starts[low]) if groups else 0
        table = table.slice(offset, stop - start)
        document, position, token_id = (table[name].to_numpy() for name in _COLUMNS)
        return document, position, token_id


def _checked_splits(splits: Any, rows: int) -> dict[str, tuple[int, int]]:
    """Split → (first row, rows), each inside of the table; `KeyError`: one of `SPLITS` is missing."""
    found = {split: (int(splits[split][0]), int(splits[split][1])) for split in {*SPLITS, *splits}}
    if any(first < 0 or count < 0 or first + count > rows for first, count in found.values()):
        raise ValueError(f"splits {found} of {rows} rows")
    return found
