"""`labels.parquet`: a row for each token of a split, with all labels that the corpus or a user gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from expander_sae.activations.language_model import tokenizer_of
from expander_sae.activations.origins import Origins
from expander_sae.activations.token_labels import kinds, positions, token_texts
from expander_sae.activations.tokens import TokenTable
from expander_sae.activations.user_labels import Labels, read_user_labels
from expander_sae.activations.weights import read_model
from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN
from expander_sae.storage.parquet_files import open_sealed, sealed_writer

_TEXT = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    {
        "document": pa.int32(),
        "position": pa.int16(),
        "token_id": pa.int32(),
        "text": _TEXT,
        "kind": _TEXT,
        "place": _TEXT,
        "origin": _TEXT,
        "user": _TEXT,
    }
)

FAMILIES = {"token": "token_id", "kind": "kind", "position": "place", "origin": "origin", "user": "user"}
"""Family of labels → its column. `text` is for a reader of the table."""


def write_labels(
    model_json: Path, tokens: Path, origins: Path, out: Path, split: str = "test", user: Path | None = None
) -> None:
    """Write the table of a split's tokens; `user` is a label file of the user's.

    Raises:
        UserError: a file that is not there or not whole, or a label of the user's that fits no token.
    """
    table = TokenTable(tokens)
    known = Origins.read(origins)
    read = table.read(split, 0, table.tokens(split))
    tokenizer = tokenizer_of(read_model(model_json))
    ids, inverse = np.unique(read.token_id, return_inverse=True)
    named = token_texts(tokenizer, ids.tolist())
    texts = [named[place] for place in inverse]
    special = set(tokenizer.all_special_ids)
    edges = np.flatnonzero(np.diff(read.document, prepend=-1, append=-1))
    kind: list[str] = []
    place: list[str | None] = []
    for start, stop in pairwise(edges):
        kind += kinds(texts[start:stop], read.token_id[start:stop].tolist(), special)
        place += positions(texts[start:stop])
    missing = sorted(set(read.document.tolist()) - known.by_number.keys())
    if missing:
        raise UserError(f"{origins}: no row for document {missing[0]} of {tokens}; {AGAIN}")
    origin = [known.by_number[number][0] for number in read.document.tolist()]
    labels = None if user is None else read_user_labels(user, known)
    given = _of_user(labels, read.document, read.position, user)
    named_labels = {"text": texts, "kind": kind, "place": place, "origin": origin, "user": given}
    write_table(out, read.document, read.position, read.token_id, named_labels)


def write_table(
    out: Path,
    document: np.ndarray,
    position: np.ndarray,
    token_id: np.ndarray,
    labels: Mapping[str, Sequence[str | None]],
) -> None:
    """Write the table from its columns, of one entry a token each."""
    columns = [pa.array(document, pa.int32()), pa.array(position, pa.int16()), pa.array(token_id, pa.int32())]
    columns += [pa.array(labels[name], pa.string()).dictionary_encode() for name in _SCHEMA.names[3:]]
    with sealed_writer(out, _SCHEMA, compression="zstd") as writer:
        writer.write_table(pa.table(columns, schema=_SCHEMA))


def _of_user(
    labels: Labels | None, document: np.ndarray, position: np.ndarray, path: Path | None
) -> list[str | None]:
    """The user's label of each token."""
    if labels is None:
        return [None] * len(document)
    tokens = list(zip(document.tolist(), position.tolist(), strict=True))
    there, held = set(tokens), set(document.tolist())
    for number, place in labels:
        if place is not None and number in held and (number, place) not in there:
            raise UserError(
                f"{path}: found position {place} of document {number}, expected one of its tokens, of which "
                f"there are {int((document == number).sum())}"
            )
    given = [labels.get(token, labels.get((token[0], None))) for token in tokens]
    if not any(label is not None for label in given):
        raise UserError(f"{path}: found no label of a test document, expected at least one")
    return given


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Columns of the table, in the order of the split's tokens."""

    path: Path
    columns: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: Path) -> LabelTable:
        """The table that `write_labels` wrote; a `UserError` names the file where it is not whole."""
        try:
            with open_sealed(path) as file:
                table = file.read(list(_SCHEMA.names))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a readable table of labels ({error}); {AGAIN}") from None
        whole = {name: table[name].combine_chunks() for name in _SCHEMA.names}
        return cls(path, {name: np.array(column.to_pylist(), object) for name, column in whole.items()})

    def check(self, document: np.ndarray, position: np.ndarray, token_id: np.ndarray) -> None:
        """Raise `UserError` unless the table's first tokens are these."""
        for name, expected in (("document", document), ("position", position), ("token_id", token_id)):
            found = self.columns[name][: len(expected)]
            if len(found) != len(expected) or (found.astype(np.int64) != expected).any():
                raise UserError(f"{self.path}: found other tokens than those of the test pool; {AGAIN}")
