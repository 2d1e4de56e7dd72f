"""JSON objects with known keys: checked once, where they are read, and typed from there on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import Field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_type_hints

from expander_sae.errors import UserError

Record = TypeVar("Record")

LATER = MappingProxyType({"later": True})
"""Metadata of a field that came after files were written: at its default it is left out of JSON, so that
their names and checksums stay."""


def stated(record: Any) -> dict[str, Any]:
    """The fields of a dataclass as a JSON object, without those of `LATER` that are at their default."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    silent = {field.name for field in _later(record) if values[field.name] == field.default}
    return {name: value for name, value in values.items() if name not in silent}


def _later(kind: Any) -> list[Field[Any]]:
    return [field for field in fields(kind) if "later" in field.metadata]


def record(kind: type[Record], value: Any, where: str, keys: Collection[str] = ()) -> Record:
    """The dataclass `kind` from a JSON object of all its fields, or of those that `keys` names.

    A field of `LATER` that is missing has its default.

    Raises:
        UserError: `where` and the key that is missing or unknown, or whose value has another type.
    """
    hints = get_type_hints(kind)
    types = {key: hints[key] for key in keys or (field.name for field in fields(kind))}  # type: ignore[arg-type]
    if not isinstance(value, dict):
        raise UserError(f"{where}: found {type(value).__name__}, expected a JSON object")
    absent = {field.name for field in _later(kind)} - value.keys()
    for key in [*types, *value]:
        if key in absent:
            continue
        if key not in value:
            raise UserError(f"{where}.{key}: missing")
        if key not in types:
            raise UserError(f"{where}.{key}: unknown key, expected one of {', '.join(types)}")
    return kind(
        **{key: _typed(types[key], value[key], f"{where}.{key}") for key in types if key not in absent}
    )


def _typed(kind: Any, value: Any, where: str) -> Any:
    # `Record | None` may be null.
    optional = [part for part in get_args(kind) if is_dataclass(part)]
    if optional and value is None:
        return None
    if is_dataclass(kind) or optional:
        return record(optional[0] if optional else kind, value, where)  # type: ignore[arg-type]
    expected, fits = _KINDS[kind]
    if not fits(value):
        raise UserError(f"{where}: found {value!r}, expected {expected}")
    return tuple(value) if isinstance(value, list) else value


def _is_a(*kinds: type) -> Callable[[Any], bool]:
    """True and False are whole numbers to Python alone."""
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", _is_a(str)),
    str | None: ("text or null", _is_a(str, type(None))),
    int: ("a whole number", _is_a(int)),
    float: ("a number", _is_a(int, float)),
    float | None: ("a number or null", _is_a(int, float, type(None))),
    bool: ("true or false", _is_a(bool)),
    tuple[str, ...]: (
        "a list of names",
        lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) for name in value),
    ),
}
"""Type of a field → what a message expects, and whether a JSON value fits it."""
