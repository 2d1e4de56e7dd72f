"""What the schema of configurations leaves to the tables: names of supports, encoders, and so on.

Where the schema says ``table: supports``, the names of that table are filled in when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from expander_sae.masks import supports
from expander_sae.masks.support import Support
from expander_sae.model.encoders import ENCODERS
from expander_sae.model.precisions import RUN_PRECISIONS
from expander_sae.pursuit import inference


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def counts(self) -> str: ...
    @property
    def shown(self) -> str: ...


def filled(rules: Any) -> Any:
    """A copy of a schema with the names of the tables in it."""
    if isinstance(rules, list):
        return [filled(item) for item in rules]
    if not isinstance(rules, dict):
        return rules
    copied = {key: filled(value) for key, value in rules.items() if key != "table"}
    return copied | (_TABLES[rules["table"]]() if isinstance(rules.get("table"), str) else {})


def _names(
    known: Sequence[_Named], words: str, join: str, digits: int, optional: Collection[str] = ()
) -> dict[str, Any]:
    """A pattern of these names; `join` is between a name and its number, which has at most so many digits.

    Those that are `optional` need no number.
    """
    number = rf"{join}[1-9][0-9]{{0,{digits - 1}}}"

    def pattern(one: _Named) -> str:
        return one.name + (f"({number})?" if one.name in optional else number if one.counts else "")

    return {
        "pattern": rf"^({'|'.join(map(pattern, known))})$",
        "description": words,
        "examples": [one.name + (f"{join}64" if one.counts else "") for one in known],
    }


def _supports() -> dict[str, Any]:
    known = [*supports.configurable(), Support(supports.IMPORTED)]
    usual = [one.name for one in known if one.usual is not None]
    return _names(known, "one of " + ", ".join(one.shown for one in known), "", 10, usual)


def _inferences(serves: Callable[[inference.Method], bool]) -> dict[str, Any]:
    known = [one for one in inference.INFERENCES.values() if serves(one)]
    *first, last = [one.shown for one in known]
    return _names(known, f"{', '.join(first)}, or {last}", "_", 6)


_TABLES: dict[str, Callable[[], dict[str, Any]]] = {
    "supports": _supports,
    "encoders": lambda: {"enum": [*ENCODERS]},
    "precisions": lambda: {"enum": [*RUN_PRECISIONS]},
    "inferences": lambda: _inferences(lambda one: one.everywhere),
    "pursuits": lambda: _inferences(lambda one: not one.everywhere or bool(one.counts)),
}
