"""A setting: where claims are judged, and which of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from expander_sae.errors import UserError
from expander_sae.measurements.tables import RUN_COLUMNS
from expander_sae.study.run import CELL_COLUMNS


@dataclass(frozen=True)
class Setting:
    """Where claims are judged: those of the ids `claims` (None for all), but for those of `all_but`.

    `where` has values of run columns, for every cell, and `values` what claims call $name. A setting that is
    `part_of` another is judged and corrected with it: its claims need no trained run.
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

        It can be part of the `wholes` before it, whose where and values it has if it gives no others.
        """
        if "claims" in entry and "all_but" in entry:
            raise UserError(f"{key}: found both claims and all_but, expected one of them")
        if "part_of" in entry and entry["part_of"] not in wholes:
            expected = f"one of {', '.join(wholes)}" if wholes else "a setting before it"
            raise UserError(f"{key}.part_of: found {entry['part_of']!r}, expected {expected}")
        whole = wholes.get(entry.get("part_of", ""))
        told = {"values": {}, **({"where": whole.where, "values": whole.values} if whole else {}), **entry}
        if "where" not in told:
            raise UserError(f"{key}.where: missing")
        where, claims = selector(told["where"], f"{key}.where"), entry.get("claims")
        chosen = None if claims is None else tuple(claims)
        return cls(entry["name"], where, told["values"], chosen, tuple(entry.get("all_but", ())), whole)

    @property
    def whole(self) -> Setting:
        """The setting that this one is part of, or itself."""
        return self.part_of or self

    def judges(self, claim: str) -> bool:
        return claim not in self.all_but and (self.claims is None or claim in self.claims)


def selector(value: dict[str, Any], key: str, texts: Collection[str] = ()) -> dict[str, Any]:
    """The mapping, checked: columns of a cell have values of their types, the names `texts` have texts."""
    for name, item in value.items():
        if name not in (*CELL_COLUMNS, *texts):
            expected = ", ".join((*CELL_COLUMNS, *texts))
            raise UserError(f"{key}: unknown key {name!r}, expected one of {expected}")
        whole = name not in texts and pa.types.is_integer(RUN_COLUMNS[name])
        if not isinstance(item, int if whole else str) or isinstance(item, bool):
            raise UserError(f"{key}.{name}: found {item!r}, expected a {'whole number' if whole else 'text'}")
    return value
