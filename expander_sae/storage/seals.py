"""A checksum of a whole file that stands inside the file.

A seal is ``expander-sae-sha256:`` and 64 hexadecimal digits: the sha256 of the file's bytes with
zeros for these digits. A writer puts `UNSEALED` somewhere into its format's metadata and calls
`seal` before the file gets its name; a reader calls `check_seal` before it parses anything. So every
changed, missing or added byte is found, whatever the format: header, padding and data alike, and
equal content still gives equal bytes.

Files written before there were seals have none, and are accepted. A damaged seal does not pass for an
absent one: it has a name in the metadata beside its prefix, and no single fault takes both away
(`agree`).

Whatever else a file says, even text that looks like a seal, the seal's place is that of the format's
field (`_place`): quotes and line breaks inside texts are escaped there, so that no text can have its form.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN, atomic_path, read_json, sha256_file
from expander_sae.storage.remote import Place

_PREFIX = b"expander-sae-sha256:"
_DIGITS = 64
_HEAD = 1 << 16
_PIECE = 1 << 20
_ZEROS = b"0" * _DIGITS
_JSON_FIELD = b'\n  "seal": "' + _PREFIX
"""The field of `write_sealed_json`: two spaces deep, where nothing but the outermost object's keys are."""
_TENSORS_FIELD = b'{\\"seal\\":\\"' + _PREFIX
_OLD_TENSORS_FIELD = b',\\"seal\\":\\"' + _PREFIX
"""The field of `save_tensors`, JSON in the JSON of a header: first in its entry, in older files last."""
_PARQUET_FIELD = b"\x18\x04seal\x18\x54" + _PREFIX
"""A key and a value of a footer in Thrift's compact form: type and length before each."""
UNSEALED = (_PREFIX + _ZEROS).decode()
"""What a writer puts where the seal is to stand."""
KEY = "seal"
"""The name of the seal in the metadata of JSON and Parquet files."""


def seal(path: str | Path) -> None:
    """Fill in the seal of a file that holds `UNSEALED` in its format's field."""
    with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as content:
        start = _place(content) + len(_PREFIX)
        if content[start : start + _DIGITS] != _ZEROS:
            raise ValueError(f"{path} has no place for a seal")
        content[start : start + _DIGITS] = _digest(content, start)


def check_seal(path: str | Path, named: Place | None = None) -> bool:
    """Whether the file is sealed; `UserError` where its bytes are not those that were, or it is no file.

    It names `named`, where the file is a copy of that.
    """
    named = path if named is None else named
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
        raise UserError(f"{named}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{named}: a folder, expected a file") from None
    raise UserError(f"{named}: altered or cut short (not the bytes that were written); {AGAIN}")


def _place(content: mmap.mmap) -> int:
    """Where the seal begins; −1 where nowhere.

    Where the field is damaged, any prefix counts: it is that of no whole file, and refused.
    """
    size = len(content)
    if content[:4] == b"PAR1":
        footer = size - 8 - int.from_bytes(content[-8:-4], "little")
        start, field = content.rfind(_PARQUET_FIELD, max(footer, 0)), _PARQUET_FIELD
    elif content[8:10] == b'{"':
        header = min(size, 8 + int.from_bytes(content[:8], "little"))
        entry = content.find(b'"{', 8, min(header, _HEAD))  # the first text that is JSON itself
        start, field = entry + 1, _TENSORS_FIELD
        if entry < 0 or content[start : start + len(field)] != field:
            start, field = content.rfind(_OLD_TENSORS_FIELD, 8, header), _OLD_TENSORS_FIELD
    else:
        start, field = content.find(_JSON_FIELD), _JSON_FIELD
    if start >= 0:
        return start + len(field) - len(_PREFIX)
    head = content.find(_PREFIX, 0, _HEAD)
    return head if head >= 0 else content.rfind(_PREFIX)


def _digest(content: mmap.mmap, start: int) -> bytes:
    found = hashlib.sha256()
    with memoryview(content) as view:
        _update(found, content, view, 0, start)
        found.update(_ZEROS)
        _update(found, content, view, start + _DIGITS, len(content))
    return found.hexdigest().encode()


def _update(found: Any, content: mmap.mmap, view: memoryview, start: int, stop: int) -> None:
    """Hash bytes [start, stop); what was read does not stay in the process's memory."""
    for first in range(start, stop, _PIECE):
        end = min(first + _PIECE, stop)
        with view[first:end] as part:
            found.update(part)
        if pages := end - end % mmap.PAGESIZE:
            content.madvise(mmap.MADV_DONTNEED, 0, pages)


def write_sealed_json(path: str | Path, value: dict[str, Any]) -> None:
    """Write a JSON object with a seal, indented and with sorted keys, atomically."""
    text = json.dumps({**value, KEY: UNSEALED}, indent=2, sort_keys=True) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        seal(temporary)


def read_sealed_json(path: str | Path, keys: Iterable[str], kind: str) -> dict[str, Any]:
    """A JSON object that `write_sealed_json` wrote, without its seal; `UserError` where it is not whole, or
    not of the kind, which must hold the keys."""
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
