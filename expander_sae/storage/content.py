"""Files told apart by what they hold, not by where or when they were written."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.storage.files import read_json, sha256_file, write_json

KNOWN = Path("results/.contents.json")
"""Checksums of files that did not change since, of the study in the working folder. It may be removed."""
_WORTH_A_WORD = 10e9


def contents(files: list[str]) -> list[list[str | None]]:
    """[name, sha256] of each file, named from the folder that holds them all; None for what is no file.

    A file is read once: its checksum is kept in `KNOWN` with its size, time and time of change, in which any
    write shows. So thousands of jobs that ask again read nothing, and a copy of a study is read once more.
    """
    known = _known()
    marks = {path: _marks(path) for path in files}
    unread = {
        path: None for path, at in marks.items() if at and not _is_of(known.get(os.path.abspath(path)), at)
    }
    _say(unread, sum(at[0] for path in unread if (at := marks[path])))
    found: dict[str, list[Any] | None] = dict.fromkeys(files)
    for path, at in marks.items():
        if at:
            found[path] = [*at, sha256_file(path)] if path in unread else known[os.path.abspath(path)]
    fresh = {os.path.abspath(path): kept for path, kept in found.items() if kept is not None}
    if any(known.get(path) != kept for path, kept in fresh.items()):
        _keep(known | fresh)
    above = os.path.commonpath([os.path.dirname(path) for path in files]) if files else ""
    named = {path: None if kept is None else str(kept[-1]) for path, kept in found.items()}
    return [[os.path.relpath(path, above or "."), checksum] for path, checksum in named.items()]


def _say(unread: Collection[str], size: int) -> None:
    """Tell who waits for it that much is read."""
    if size > _WORTH_A_WORD:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        print(f"{next(iter(unread))}{more}: reading {size / 1e9:.3g} GB to know the content", file=sys.stderr)


def _marks(path: str) -> list[int] | None:
    """[size, time, time of change] of a file; None for what is no file."""
    if not os.path.isfile(path):
        return None
    about = os.stat(path)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def _is_of(known: Any, marks: list[int]) -> bool:
    """Whether [*marks, sha256] is what is known."""
    return isinstance(known, list) and known[:3] == marks and len(known) == 4


def _known() -> dict[str, Any]:
    with suppress(UserError, OSError):
        known = read_json(KNOWN) if KNOWN.exists() else {}
        return known if isinstance(known, dict) else {}
    return {}


def _keep(known: dict[str, Any]) -> None:
    """Write what is known, in a folder that is a study's: nothing is made where nobody runs one."""
    if KNOWN.parent.is_dir():
        with suppress(UserError, OSError):
            write_json(KNOWN, known)
