"""Checks of what a YAML file holds: each returns the value, or raises `UserError` with its key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from expander_sae.errors import UserError

_EXPECTED = {
    dict: "a mapping", list: "a list", str: "a text", int: "a whole number", float: "a number",
    bool: "true or false",
}  # fmt: skip


def typed(value: Any, key: str, kind: type) -> Any:
    """A value of one kind; whole numbers are numbers, booleans are not, and a text is not blank."""
    right = isinstance(value, int | float if kind is float else kind)
    if not right or isinstance(value, bool) > (kind is bool) or (kind is str and not value.strip()):
        raise UserError(f"{key}: found {value!r}, expected {_EXPECTED[kind]}")
    return value


def mapping_of(
    value: Any, key: str, allowed: Collection[str], required: Collection[str] = ()
) -> dict[str, Any]:
    """A mapping with the required keys, and with no other than the allowed ones."""
    for name in typed(value, key, dict):
        if name not in allowed:
            raise UserError(f"{key}: unknown key {name!r}, expected one of {', '.join(allowed)}")
    for name in required:
        if name not in value:
            raise UserError(f"{key}: no {name!r}, expected {', '.join(required)}")
    return value


def one_of(value: Any, key: str, allowed: Collection[str], expected: str = "") -> str:
    """One of some names; `expected` says in words which."""
    if not isinstance(value, str) or value not in allowed:
        raise UserError(f"{key}: found {value!r}, expected {expected or 'one of ' + ', '.join(allowed)}")
    return value
