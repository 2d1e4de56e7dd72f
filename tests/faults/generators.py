"""Malformed inputs from seeded generators: valid ones with something changed."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NASTY_TEXT = (
    "",
    " ",
    "a b",
    "'",
    '"',
    "`touch canary`",
    "$(touch canary)",
    "; touch canary",
    "| touch canary",
    "&& touch canary",
    "..",
    "../..",
    "../../etc/passwd",
    "/",
    "/etc/passwd",
    "~",
    "~root",
    ".",
    ".hidden",
    "-rf",
    "--help",
    "a/b",
    "a\\b",
    "a\nb",
    "a\tb",
    "a\0b",
    "\ud800",
    "é",
    "模型",
    "\u202e",
    "x" * 300,
    "x" * 100_000,
    "{",
    "}",
    "{0}",
    "{model}",
    "{wildcards}",
    "%s",
    "${HOME}",
    "*",
    "?",
    "[a",
    "results",
    "logs",
    "masks",
    "CON",
    "null",
    "nan",
)
NASTY_NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    7,
    0.5,
    -0.0,
    1e-320,
    1e-9,
    1.5,
    1e9,
    2**31 - 1,
    2**31,
    2**32,
    2**63,
    10**30,
    10**400,
    -(10**30),
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
)
NASTY_VALUES = (None, True, False, [], {}, [[]], [None], {"a": 1}, {"": {}}, [1, 1], "1", b"x")


def nasty(draw: random.Random) -> Any:
    """A value of a kind that nobody asked for."""
    return copy.deepcopy(draw.choice(draw.choice((NASTY_TEXT, NASTY_NUMBERS, NASTY_VALUES))))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Key path of every value inside of a nested one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(value: Any, draw: random.Random, changes: int = 1) -> Any:
    """A copy in which values are replaced, removed, renamed, wrapped or added."""
    value = copy.deepcopy(value)
    for _ in range(changes):
        found = list(places(value))
        if not found:
            return value
        *path, last = draw.choice(found)
        holder = value
        for key in path:
            holder = holder[key]
        how = draw.randrange(6)
        if how <= 1:
            holder[last] = nasty(draw)
        elif how == 2:
            del holder[last]
        elif how == 3 and isinstance(holder, dict):
            holder[str(last) + draw.choice(("x", " ", "_", "."))] = holder.pop(last)
        elif how == 4:
            holder[last] = [holder[last], nasty(draw)]
        elif isinstance(holder, dict):
            holder[draw.choice(("extra", "", "m", "n", "name", "__class__", "on"))] = nasty(draw)
        else:
            holder.append(nasty(draw))
    return value


def raw_bytes(draw: random.Random, whole: bytes) -> bytes:
    """Bytes that are no file of the kind of `whole`, or only nearly."""
    how = draw.randrange(8)
    if how == 0:
        return draw.randbytes(draw.randrange(200))
    if how == 1:
        return whole[: draw.randrange(len(whole) + 1)]
    if how == 2:
        start = draw.randrange(len(whole))
        return whole[:start] + whole[start + draw.randrange(1, 64) :]
    if how == 3:
        start = draw.randrange(len(whole))
        return whole[:start] + draw.randbytes(draw.randrange(1, 64)) + whole[start:]
    if how == 4:
        return draw.choice(
            (b"", b"{}", b"[]", b"null", b"\0" * 64, b"PAR1PAR1", b'{"a": NaN}', b"[" * 100_000)
        )
    if how == 5:
        return pickle.dumps(Canary(), protocol=draw.randrange(6))
    if how == 6:
        size = draw.choice((0, 1, 2**20, 2**40, 2**63, 2**64 - 1))
        return size.to_bytes(8, "little") + whole[8:]
    changed = bytearray(whole)
    for _ in range(draw.randrange(1, 30)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


class Canary:
    """Unpickling this leaves a file: nothing of ours may ever do so."""

    def __reduce__(self) -> Any:
        return (open, ("canary", "w"))


def safetensors_bytes(header: Any, data: bytes) -> bytes:
    """A safetensors file of any header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def split_safetensors(path: Path) -> tuple[dict[str, Any], bytes]:
    """(header, data) of a safetensors file."""
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]
