"""Files in object storage, by addresses such as ``s3://bucket/name``, through fsspec.

A file is written here and sent whole, and fetched whole into a folder of this process before it is read. So
a transfer that ends early leaves nothing under the name: a store shows an object when all of it has arrived.
What arrived is told from what was sent by the seal inside it (`storage.seals`).

Each protocol has a package of its own (s3fs, gcsfs), which finds the credentials and the endpoint of its
service. fsspec takes other settings from variables such as ``FSSPEC_S3_ANON``.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError, as_user_error

Place = str | Path
"""A path of this machine, or the address of a file or folder in object storage, which is no `Path`."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.+")
_BROKEN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")


def is_remote(place: Place) -> bool:
    """Whether it is an address."""
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def place(text: Place) -> Place:
    """What a text names: an address as it is, anything else as a path.

    Raises:
        UserError: a path that was made of an address, in which a slash is missing.
    """
    if is_remote(text):
        return str(text).rstrip("/")
    if _BROKEN.match(str(text)):
        raise UserError(f"{text}: found a path, expected an address as a text, such as s3://bucket/name")
    return Path(text)


def below(folder: Place, name: str) -> Place:
    """The place of a file by its name below a folder."""
    return f"{str(folder).rstrip('/')}/{name}" if is_remote(folder) else Path(folder, name)


def names_in(folder: Place) -> list[str]:
    """Names of the files in a folder, sorted; none where there is no such folder."""
    if not is_remote(folder):
        path = Path(folder)
        return sorted(each.name for each in path.iterdir()) if path.is_dir() else []
    with as_user_error(f"{folder}: cannot be listed"):
        store, inside = _store(folder)
        try:
            found = store.ls(inside, detail=True)
        except FileNotFoundError:
            return []
    return sorted(each["name"].rsplit("/", 1)[-1] for each in found if each["type"] == "file")


@contextmanager
def sent(address: str) -> Iterator[Path]:
    """Yield a temporary file of this machine that is sent whole when the block ends without error."""
    with tempfile.TemporaryDirectory(prefix="expander-sae-") as folder:
        temporary = Path(folder, _name(address))
        yield temporary
        with as_user_error(f"{address}: cannot be written"):
            store, path = _store(address)
            store.put_file(str(temporary), path)


@contextmanager
def fetched(found: Place) -> Iterator[Path]:
    """A remote file as one of this machine, any other as it is.

    The copy has no name any more when the block ends. Who has opened it can go on reading, and its room is
    free when they close it, however they end.
    """
    if not is_remote(found):
        yield Path(found)
        return
    # Windows does not remove what is open.
    with tempfile.TemporaryDirectory(prefix="expander-sae-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder, _name(str(found)))
        with _reading(found):
            store, path = _store(found)
            store.get_file(path, str(copy))
        yield copy


def opened(address: str) -> Any:
    """A remote file as a stream, of which only what is read is fetched; nothing of it is checked."""
    with _reading(address):
        store, path = _store(address)
        return store.open(path, "rb")


@contextmanager
def _reading(address: Place) -> Iterator[None]:
    with as_user_error(f"{address}: cannot be read"):
        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{address}: no such file") from None


def _name(address: str) -> str:
    return address.rsplit("/", 1)[-1]


def _store(address: Place) -> tuple[Any, str]:
    """(its file system, the path there); what other processes have written since is seen."""
    from fsspec.core import url_to_fs

    # Folders are made where a store has some: on a disk that is named by an address.
    disk = {"auto_mkdir": True} if str(address).startswith(("file:", "local:")) else {}
    return url_to_fs(str(address), use_listings_cache=False, **disk)
