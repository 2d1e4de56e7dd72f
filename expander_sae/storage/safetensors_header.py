"""What a safetensors file says of its tensors, read without any of them and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError, readable

KEY = "expander_sae"
SEALED_KEY = "expander_sae.sealed"
"""Files without a seal, written before there were any, have `KEY` in place of this."""

_LENGTH = 8
"""Bytes of the header's length, a whole number with its lowest byte first."""


def header_of(path: Path) -> dict[str, Any]:
    """Name of a tensor → its `shape` and `dtype`; ``__metadata__`` → texts, where there are any."""
    with readable(path, "a whole safetensors file", ValueError, RecursionError), open(path, "rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        if length > path.stat().st_size - _LENGTH:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(stream.read(length))
        if not isinstance(header, dict):
            raise ValueError(f"a header that is a {type(header).__name__}")
    return header


def about_of(path: Path) -> dict[str, Any]:
    """The JSON value that `storage.safetensors_files.save_tensors` kept; nothing is checked but its form."""
    metadata = header_of(path).get("__metadata__") or {}
    try:
        entry = json.loads(metadata[SEALED_KEY if SEALED_KEY in metadata else KEY])
        about = entry["about"] if SEALED_KEY in metadata else entry
        if not isinstance(about, dict):
            raise TypeError(f"found {type(about).__name__}")
    except (ValueError, TypeError, KeyError, RecursionError):
        expected = f"expected {SEALED_KEY!r} of a file that expander-sae wrote"
        raise UserError(f"{path}: found metadata {sorted(metadata)}, {expected}") from None
    return about
