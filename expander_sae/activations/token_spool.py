"""Tokenised documents of a split on disk, until all that there will be of it are known."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from expander_sae.activations.tokens import TokenizedDocument

_BUFFER = 1 << 20


class TokenSpool:
    """Documents in the order in which they were added, read again as often as asked.

    They lie in a file without a name in `folder`, 4 bytes a token, which is gone when this is closed or the
    process ends.
    """

    def __init__(self, folder: Path) -> None:
        # Open as long as this is: `__exit__` closes it, which the check cannot see.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115
        self._checksum = hashlib.sha256()
        self.documents = self.tokens = 0

    def add(self, document: TokenizedDocument) -> None:
        """Add a document, whose token ids are kept as int32."""
        ids = np.array(document.token_ids, "<i4").tobytes()
        head = np.array([document.number, len(document.token_ids)], "<i8").tobytes()
        self._file.write(head + ids)
        self._checksum.update(head + ids)
        self.documents += 1
        self.tokens += len(document.token_ids)

    def __iter__(self) -> Iterator[TokenizedDocument]:
        """The documents; none may be added meanwhile."""
        self._file.seek(0)
        for _ in range(self.documents):
            number, length = np.frombuffer(self._file.read(16), "<i8").tolist()
            yield TokenizedDocument(number, np.frombuffer(self._file.read(4 * length), "<i4"))

    def describe(self) -> dict[str, Any]:
        """Documents, tokens, and the sha256 of all of it."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "sha256": self._checksum.hexdigest(),
        }

    def __enter__(self) -> TokenSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
