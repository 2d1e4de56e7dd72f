"""A setting: where claims are judged, and which of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from expander_sae.claims.yaml_values import mapping_of, typed
from expander_sae.errors import UserError
from expander_sae.measurements.tables import RUN_COLUMNS

COLUMNS = tuple(column for column in RUN_COLUMNS if column != "seed")
"""What tells one cell of runs from another."""


@dataclass(frozen=True)
class Setting:
    """Where claims are judged.

    where: values of run columns, for every cell. values: what claims call $name.
    claims: ids of those that are judged here, None for all; all_but: ids of those that are not.
    """

    name: str
    where: Mapping[str, Any]
    values: Mapping[str, Any]
    claims: tuple[str, ...] | None = None
    all_but: tuple[str, ...] = ()

    def judges(self, claim: str) -> bool:
        """Whether the claim of this id is judged here."""
        return claim not in self.all_but and (self.claims is None or claim in self.claims)


def parse_setting(entry: Any, key: str) -> Setting:
    """A setting from its entry in the file, whose key is `key`."""
    mapping_of(entry, key, ("name", "where", "values", "claims", "all_but"), ("name", "where"))
    if "claims" in entry and "all_but" in entry:
        raise UserError(f"{key}: found both claims and all_but, expected one of them")
    return Setting(
        typed(entry["name"], f"{key}.name", str),
        selector(entry["where"], f"{key}.where"),
        typed(entry.get("values", {}), f"{key}.values", dict),
        tuple(typed(entry["claims"], f"{key}.claims", list)) if "claims" in entry else None,
        tuple(typed(entry.get("all_but", []), f"{key}.all_but", list)),
    )


def selector(value: Any, key: str, texts: Collection[str] = ()) -> dict[str, Any]:
    """A mapping from run columns to values of their types, and from the names `texts` to texts."""
    for name, item in mapping_of(value, key, (*COLUMNS, *texts)).items():
        whole = name not in texts and pa.types.is_integer(RUN_COLUMNS[name])
        typed(item, f"{key}.{name}", int if whole else str)
    return dict(value)
