"""Which files a user means by a path, a folder or a pattern."""

from __future__ import annotations

import os
from collections.abc import Iterator
from glob import escape, glob
from typing import NoReturn

from expander_sae.errors import UserError


def named(location: str) -> str:
    """The path that a location names: itself where it exists, else with ``~`` as the home folder."""
    return location if os.path.lexists(location) else os.path.expanduser(location)


def located(location: str) -> list[str]:
    """Files and folders that a location names, sorted; none where there is nothing.

    What exists under this very name is meant, whatever brackets or stars the name has. Otherwise what follows
    the folders that exist is a pattern, in which ``**`` is any folders.
    """
    path = named(location)
    return [path] if os.path.lexists(path) else sorted(glob(_pattern(path), recursive=True))


def _pattern(location: str) -> str:
    """The location with its longest part that exists taken letter by letter."""
    at = len(location)
    while (at := location.rfind(os.sep, 0, at)) > 0:
        if os.path.isdir(location[:at]):
            return escape(location[:at]) + location[at:]
    return location


def files_of(location: str) -> list[str]:
    """Every file of a location, once: those that it names, and those in the folders that it names.

    Folders that are linked to are entered too, each once. What is hidden (its name begins with a dot) is left
    alone unless the location names it.

    Raises:
        UserError: a folder that cannot be read.
    """
    found = (file for path in located(location) for file in _inside(path))
    return list(dict.fromkeys(found))


def _unread(error: OSError) -> NoReturn:
    """A folder that cannot be looked into is no empty one."""
    raise UserError(f"{error.filename}: {error.strerror}, expected a folder that can be read")


def _inside(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    entered, inside = set(), []
    for at, folders, names in os.walk(path, onerror=_unread, followlinks=True):
        real = os.path.realpath(at)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside += [os.path.join(at, name) for name in names if not name.startswith(".")]
    yield from sorted(inside)
