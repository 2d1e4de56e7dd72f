"""A checksum of a whole file that stands inside the file.

A seal is ``expander-sae-sha256:`` and 64 hexadecimal digits: the sha256 of the file's bytes with
zeros for these digits. A writer puts `UNSEALED` somewhere into its format's metadata and calls
`seal` before the file gets its name; a reader calls `check_seal` before it parses anything. So every
changed, missing or added byte is found, whatever the format: header, padding and data alike, and
equal content still gives equal bytes.

Files written before there were seals have none, and are accepted. A damaged seal does not pass for an
absent one: it has a name in the metadata beside its prefix, and no single fault takes both away
(`agree`).
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.files import AGAIN, atomic_path, read_json, sha256_file

_PREFIX = b"expander-sae-sha256:"
_DIGITS = 64
_HEAD = 1 << 16
_ZEROS = b"0" * _DIGITS
UNSEALED = (_PREFIX + _ZEROS).decode()
"""What a writer puts where the seal is to stand."""
KEY = "seal"
"""The name of the seal in the metadata of JSON and Parquet files."""


def seal(path: str | Path) -> None:
    """Fill in the seal of a file that holds `UNSEALED` once."""
    with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as content:
        start = _place(content) + len(_PREFIX)
        if content[start : start + _DIGITS] != _ZEROS:
            raise ValueError(f"{path} has no place for a seal")
        content[start : start + _DIGITS] = _digest(content, start)


def check_seal(path: str | Path) -> bool:
    """Whether the file is sealed; `UserError` where its bytes are not those that were sealed."""
    try:
        with open(path, "rb") as stream:
            if not stream.read(1):
                return False
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                place = _place(content)
                if place < 0:
                    return False
                start = place + len(_PREFIX)
                if content[start : start + _DIGITS] == _digest(content, start):
                    return True
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, expected a file") from None
    raise UserError(f"{path}: altered or cut short (not the bytes that were written); {AGAIN}")


def _place(content: mmap.mmap) -> int:
    """Where the seal begins: in a head or a footer, so that data are searched last; −1 where nowhere."""
    head = content.find(_PREFIX, 0, _HEAD)
    return head if head >= 0 else content.rfind(_PREFIX)


def _digest(content: mmap.mmap, start: int) -> bytes:
    found = hashlib.sha256()
    with memoryview(content) as view:
        for part in (view[:start], _ZEROS, view[start + _DIGITS :]):
            found.update(part)
            if isinstance(part, memoryview):
                part.release()
    return found.hexdigest().encode()


def write_sealed_json(path: str | Path, value: dict[str, Any]) -> None:
    """Write a JSON object with a seal, indented and with sorted keys, atomically."""
    text = json.dumps({**value, KEY: UNSEALED}, indent=2, sort_keys=True) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        seal(temporary)


def read_sealed_json(path: str | Path, keys: Iterable[str], kind: str) -> dict[str, Any]:
    """A JSON object that `write_sealed_json` wrote, without its seal.

    keys: what such a file must hold; kind: what the file is, for messages.

    Raises:
        UserError: missing, altered, no JSON, or another kind of file.
    """
    sealed = check_seal(path)
    record = read_json(path)
    if not isinstance(record, dict) or not agree(sealed, record):
        raise UserError(f"{path}: not a whole {kind}; {AGAIN}")
    for key in keys:
        if key not in record:
            raise UserError(f"{path}: found no {key!r}, expected a {kind}; {AGAIN}")
    return {key: value for key, value in record.items() if key != KEY}


def agree(sealed: bool, names: Iterable[str | bytes]) -> bool:
    """Whether metadata of these names are those of a file that `check_seal` found to be (un)sealed."""
    return sealed == any(name in (KEY, KEY.encode()) for name in names)


def check_recorded(path: Path, record: Path, key: str) -> None:
    """Raise `UserError` where a file is not the one whose sha256 a sealed record holds under `key`.

    For files that have no place for a seal; records of earlier versions, which hold none, are accepted.
    """
    expected = read_sealed_json(record, (), "record").get(key)
    if expected is not None and sha256_file(path) != expected:
        raise UserError(f"{path}: altered or cut short (not the bytes that were written); {AGAIN}")
