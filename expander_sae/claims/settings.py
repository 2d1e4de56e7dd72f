"""A setting: where claims are judged, and which of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from expander_sae.errors import UserError
from expander_sae.measurements.tables import RUN_COLUMNS

COLUMNS = tuple(column for column in RUN_COLUMNS if column != "seed")
"""What tells one cell of runs from another."""


@dataclass(frozen=True)
class Setting:
    """Where claims are judged.

    Args:
        where: values of run columns, for every cell.
        values: what claims call $name.
        claims: ids of those that are judged here, None for all.
        all_but: ids of those that are not.
        part_of: the setting with which this one is judged and corrected: its claims need no trained run.
    """

    name: str
    where: Mapping[str, Any]
    values: Mapping[str, Any]
    claims: tuple[str, ...] | None = None
    all_but: tuple[str, ...] = ()
    part_of: Setting | None = None

    @classmethod
    def of(cls, entry: dict[str, Any], wholes: Mapping[str, Setting], key: str) -> Setting:
        """The setting of an entry of the file, whose key is `key`.

        Args:
            wholes: those before it that can have parts; a part has its where and values, if it gives no
                others.
        """
        if "claims" in entry and "all_but" in entry:
            raise UserError(f"{key}: found both claims and all_but, expected one of them")
        if "part_of" in entry and entry["part_of"] not in wholes:
            expected = f"one of {', '.join(wholes)}" if wholes else "a setting before it"
            raise UserError(f"{key}.part_of: found {entry['part_of']!r}, expected {expected}")
        whole = wholes.get(entry.get("part_of", ""))
        if "where" not in entry and whole is None:
            raise UserError(f"{key}.where: missing")
        return cls(
            entry["name"],
            selector(entry["where"], f"{key}.where") if "where" in entry or whole is None else whole.where,
            entry.get("values", {} if whole is None else whole.values),
            tuple(entry["claims"]) if "claims" in entry else None,
            tuple(entry.get("all_but", ())),
            whole,
        )

    @property
    def whole(self) -> Setting:
        """The setting that this one is part of, or itself."""
        return self.part_of or self

    def judges(self, claim: str) -> bool:
        """Whether the claim of this id is judged here."""
        return claim not in self.all_but and (self.claims is None or claim in self.claims)


def selector(value: dict[str, Any], key: str, texts: Collection[str] = ()) -> dict[str, Any]:
    """A mapping from run columns to values of their types, and from the names `texts` to texts.

    Raises:
        UserError: another name, or a value of another type.
    """
    for name, item in value.items():
        if name not in COLUMNS and name not in texts:
            raise UserError(f"{key}: unknown key {name!r}, expected one of {', '.join((*COLUMNS, *texts))}")
        whole = name not in texts and pa.types.is_integer(RUN_COLUMNS[name])
        if not isinstance(item, int if whole else str) or isinstance(item, bool):
            raise UserError(f"{key}.{name}: found {item!r}, expected a {'whole number' if whole else 'text'}")
    return value
