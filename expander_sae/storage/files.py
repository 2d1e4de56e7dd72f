"""Files that are either whole or absent, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.storage.remote import Place, is_remote, place, sent

AGAIN = "if the workflow made it, remove it to have it made again"
_ABANDONED_SECONDS = 86400
_HOST = re.sub(r"\W", "", platform.node())[:32] or "host"


@contextmanager
def atomic_path(path: Place) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it when the block ends without error.

    The sibling keeps the suffix, since several writers choose the format by it. A full or failing disk is a
    `UserError` that names `path`. Of an address in object storage it lies here, and is sent in the end.
    """
    if is_remote(path):
        with sent(str(path)) as temporary:
            yield temporary
        return
    path = Path(place(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        # Windows flushes only what is open for writing.
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # Writes to an open file name none, and the temporary name would tell the user nothing.
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise UserError(f"{path}: cannot be written ({os.strerror(error.errno)})") from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_sibling(path: Path) -> Path:
    """A name beside `path` for this process alone; what killed processes left there is removed.

    By host and process in the name, only what nobody writes any more is removed: the process has ended, or a
    day has passed on another host.
    """
    ours = f"{_HOST}-{os.getpid()}"
    marked = re.compile(re.escape(f".{path.stem}.") + r"(.+)-(\d+)\.partial" + re.escape(path.suffix))
    try:
        names = os.listdir(path.parent)
    except OSError:
        names = []
    for name in names:
        found = marked.fullmatch(name)
        if found and _abandoned(path.with_name(name), found[1], int(found[2])):
            _remove(path.with_name(name))
    return path.with_name(f".{path.stem}.{ours}.partial{path.suffix}")


def check_writable(path: str | Path) -> None:
    """Find out before long work whether `atomic_path` will be able to write `path`, or raise `UserError`.

    Makes the folder, and makes and removes a temporary sibling.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _abandoned(path: Path, host: str, process: int) -> bool:
    # On Windows `os.kill` with 0 is not a question: it would send the process Ctrl+C.
    if host == _HOST and os.name != "nt":
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            pass
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its path from there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, indented and with sorted keys, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object by its pairs, as `object_pairs_hook`; `ValueError` for a key that stands there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or malformed file is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {AGAIN}") from None
