"""From a claim's entry in the file to the comparisons that it makes in a setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

from expander_sae.claims.kinds import KINDS, Combine
from expander_sae.claims.settings import Setting, selector
from expander_sae.errors import UserError
from expander_sae.measurements.document_cells import Request
from expander_sae.measurements.index import default_split

MEASURED = ("metric", "inference", "split")
"""What a cell may say beside run columns, and a claim for all of its cells."""


@dataclass(frozen=True)
class Planned:
    """One comparison of a claim in a setting: what it needs and its statistic."""

    label: str
    requests: tuple[Request, ...]
    combine: Combine


@dataclass(frozen=True)
class _Scope:
    """What `$name` stands for: values of a setting, and of one repetition under `each`."""

    setting: str
    values: Mapping[str, Any]

    def resolve(self, value: Any, key: str) -> Any:
        """The value with each text `$name` replaced by what it stands for."""
        if isinstance(value, dict):
            return {name: self.resolve(item, f"{key}.{name}") for name, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, f"{key}[{place}]") for place, item in enumerate(value)]
        if not isinstance(value, str) or not value.startswith("$"):
            return value
        if value[1:] not in self.values:
            names = ", ".join(f"${name}" for name in sorted(self.values)) or "no such value"
            raise UserError(f"{key}: found {value} in setting {self.setting!r}, expected {names}")
        return self.values[value[1:]]


def plan(entry: dict[str, Any], setting: Setting, key: str) -> tuple[Planned, ...]:
    """The comparisons of the claim `entry`, whose key in the file is `key`, in a setting."""
    each = _Scope(setting.name, setting.values).resolve(entry.get("each"), f"{key}.each")
    repetitions = _repetitions(each, f"{key}.each")
    return tuple(chain.from_iterable(_plan_one(entry, setting, values, key) for values in repetitions))


def _repetitions(each: Any, key: str) -> list[dict[str, Any]]:
    """The values of `each`: every combination of a mapping's lists, or a list's mappings."""
    if each is None:
        return [{}]
    if isinstance(each, list) and all(isinstance(item, dict) for item in each):
        return each
    if isinstance(each, dict) and all(isinstance(values, list) for values in each.values()):
        return [dict(zip(each, combination, strict=True)) for combination in product(*each.values())]
    raise UserError(f"{key}: found {each!r}, expected lists of values, or a list of mappings")


def _plan_one(entry: dict[str, Any], setting: Setting, repetition: dict[str, Any], key: str) -> list[Planned]:
    """The comparisons of one repetition."""
    scope, kind = _Scope(setting.name, {**setting.values, **repetition}), KINDS[entry["test"]]
    cells = {name: scope.resolve(cell, f"{key}.cells.{name}") for name, cell in entry["cells"].items()}
    options = {name: scope.resolve(entry[name], f"{key}.{name}") for name in kind.options if name in entry}
    # A list is what the comparison is made of, and is told by its own label.
    said = [f"{name} {value}" for name, value in repetition.items() if not isinstance(value, list)]
    common = {**{name: entry[name] for name in MEASURED if name in entry}, **setting.where}
    found = []
    for comparison in kind.expand(cells, options, key):
        named = [(name if name in cells else "cell", dict(cell)) for name, cell in comparison.cells.items()]
        asked = tuple(_request(common, cell, setting, f"{key}.cells.{name}") for name, cell in named)
        label = ", ".join([*said, *[comparison.label] * bool(comparison.label)])
        found.append(Planned(label, asked, comparison.combine))
    return found


def _request(common: dict[str, Any], cell: dict[str, Any], setting: Setting, key: str) -> Request:
    """What a cell asks for; `common` holds what it does not say itself."""
    asked = {"inference": "encoder", **common, **selector(cell, key, MEASURED)}
    asked.setdefault("split", default_split(asked["metric"]))
    where = {column: value for column, value in asked.items() if column not in MEASURED}
    return Request(key, where, asked["metric"], asked["inference"], asked["split"], setting.where)
