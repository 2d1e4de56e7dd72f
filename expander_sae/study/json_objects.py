"""JSON objects with known keys: checked once, where they are read, and typed from there on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar, get_type_hints

from expander_sae.errors import UserError

Record = TypeVar("Record")


def object_with(keys: Collection[str], value: Any, where: str) -> dict[str, Any]:
    """`value`, which must have exactly these keys. where: what a message calls it.

    Raises:
        UserError: it is no JSON object, or a key is missing or unknown.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: found {type(value).__name__}, expected a JSON object")
    for key in keys:
        if key not in value:
            raise UserError(f"{where}.{key}: missing")
    for key in value:
        if key not in keys:
            raise UserError(f"{where}.{key}: unknown key, expected one of {', '.join(keys)}")
    return value


def typed(kind: Any, value: Any, where: str) -> Any:
    """`value` as one of type `kind`, which is one of `_KINDS`; a list becomes a tuple.

    Raises:
        UserError: it has another type.
    """
    expected, fits = _KINDS[kind]
    if not fits(value):
        raise UserError(f"{where}: found {value!r}, expected {expected}")
    return tuple(value) if isinstance(value, list) else value


def record(kind: type[Record], value: Any, where: str) -> Record:
    """The dataclass `kind` from a JSON object of its fields.

    Raises:
        UserError: no JSON object, a key is missing or unknown, or a value has another type.
    """
    types = get_type_hints(kind)
    found = object_with(types, value, where)
    return kind(**{name: typed(types[name], found[name], f"{where}.{name}") for name in types})


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    str | None: ("text or null", lambda value: value is None or isinstance(value, str)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    tuple[str, ...]: ("a list of names", _texts),
}
"""Type of a field → what a message expects, and whether a JSON value fits it."""
