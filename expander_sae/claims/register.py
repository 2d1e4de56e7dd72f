"""Reading workflow/claims.yaml: claims written down before the data, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa

from expander_sae.claims.kinds import KINDS, Combine, Region, region
from expander_sae.errors import UserError
from expander_sae.measurements.document_cells import Request
from expander_sae.measurements.index import default_split
from expander_sae.measurements.tables import RUN_COLUMNS

_TOP = ("confidence", "minimum_seeds", "draws", "settings", "claims")
_TEXTS = ("id", "sentence", "source", "statistic", "test", "metric")
_REQUIRED = (*_TEXTS, "cells", "threshold")
_OPTIONAL = ("inference", "split", "where", "each", "needs_seeds", "point", "lower_bound", "settings",
             "known_in")  # fmt: skip
_MEASURED = ("metric", "inference", "split")


@dataclass(frozen=True)
class Planned:
    """One comparison of a claim in a setting: what it needs and its statistic."""

    label: str
    requests: tuple[Request, ...]
    combine: Combine


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in the file.

    plans: comparisons in each setting that the claim speaks of. needs_seeds: whether fewer than
    the minimum of seeds leaves it undecided. point: the number is compared as it stands. lower_bound: the
    metric bounds from below what the claim bounds from above, so that it can refute and not prove.
    known_in: settings whose rows had been read when the claim was written; it tests nothing there.
    """

    id: str
    sentence: str
    source: str
    statistic: str
    every: bool
    region: Region
    needs_seeds: bool
    point: bool
    lower_bound: bool
    known_in: tuple[str, ...]
    plans: Mapping[str, tuple[Planned, ...]]


@dataclass(frozen=True)
class Setting:
    """Where claims are judged: `where` fixes run columns, `values` are what claims call $name.

    claims: ids of those that are judged there; None for all.
    """

    name: str
    where: Mapping[str, Any]
    values: Mapping[str, Any]
    claims: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Register:
    """Every claim, and how it is decided. The first setting is always judged."""

    confidence: float
    minimum_seeds: int
    draws: int
    settings: tuple[Setting, ...]
    claims: tuple[Claim, ...]


def read_register(path: str | Path) -> Register:
    """The claims of a YAML file; the first mistake raises `UserError` with its key."""
    import yaml

    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected the list of claims") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    return parse_register(data, path.name)


def parse_register(data: Any, name: str = "claims.yaml") -> Register:
    """The same from the file's content; `name` is the file's name in messages."""
    _keys(data, name, _TOP, ("settings", "claims"))
    confidence = _number(data.get("confidence", 0.95), f"{name}: confidence", float)
    if not 0 < confidence < 1:
        raise UserError(f"{name}: confidence: found {confidence}, expected a number between 0 and 1")
    minimum = _number(data.get("minimum_seeds", 5), f"{name}: minimum_seeds", int)
    draws = _number(data.get("draws", 2000), f"{name}: draws", int)
    if draws < 100:
        raise UserError(f"{name}: draws: found {draws}, expected at least 100")
    settings = tuple(
        _setting(entry, f"{name}: settings[{place}]")
        for place, entry in enumerate(_list(data["settings"], f"{name}: settings"))
    )
    claims = tuple(
        _claim(entry, settings, f"{name}: claims[{place}]")
        for place, entry in enumerate(_list(data["claims"], f"{name}: claims"))
    )
    for key, found in (("settings", [s.name for s in settings]), ("claims", [c.id for c in claims])):
        twice = next((item for place, item in enumerate(found) if item in found[:place]), None)
        if twice is not None:
            raise UserError(f"{name}: {key}: found {twice!r} twice, expected it once")
    ids = [claim.id for claim in claims]
    for setting in settings:
        for asked in setting.claims or ():
            if asked not in ids:
                raise UserError(
                    f"{name}: settings ({setting.name}).claims: found {asked!r}, expected the id of a claim"
                )
    return Register(confidence, minimum, draws, settings, claims)


def _setting(entry: Any, key: str) -> Setting:
    _keys(entry, key, ("name", "where", "values", "claims"), ("name", "where"))
    values = entry.get("values", {})
    _mapping(values, f"{key}.values")
    _selector(entry["where"], f"{key}.where", ())
    chosen = tuple(_list(entry["claims"], f"{key}.claims")) if "claims" in entry else None
    return Setting(_text(entry["name"], f"{key}.name"), entry["where"], values, chosen)


def _claim(entry: Any, settings: tuple[Setting, ...], key: str) -> Claim:
    _mapping(entry, key)
    if isinstance(entry.get("id"), str):
        key = f"{key} ({entry['id']})"
    test = entry.get("test")
    if not isinstance(test, str) or test not in KINDS:
        raise UserError(f"{key}.test: found {test!r}, expected one of {', '.join(KINDS)}")
    kind = KINDS[test]
    needed = tuple(name for name in kind.settings if name in ("over", "values"))
    _keys(entry, key, (*_REQUIRED, *_OPTIONAL, *kind.settings), (*_REQUIRED, *needed))
    for name in _TEXTS:
        _text(entry[name], f"{key}.{name}")
    cells = _mapping(entry["cells"], f"{key}.cells")
    if kind.cells is not None and set(cells) != set(kind.cells):
        raise UserError(f"{key}.cells: found {', '.join(cells) or 'none'}, expected {', '.join(kind.cells)}")
    if not cells:
        raise UserError(f"{key}.cells: found none, expected one or more")
    if "over" in entry and entry["over"] not in _columns():
        raise UserError(f"{key}.over: found {entry['over']!r}, expected one of {', '.join(_columns())}")
    for flag in ("needs_seeds", "point", "lower_bound"):
        if not isinstance(entry.get(flag, True), bool):
            raise UserError(f"{key}.{flag}: found {entry[flag]!r}, expected true or false")
    names = [setting.name for setting in settings]
    chosen = _list(entry.get("settings", names), f"{key}.settings")
    known_in = _list(entry.get("known_in", []), f"{key}.known_in")
    for listed, those in (("settings", chosen), ("known_in", known_in)):
        for name in those:
            if name not in names:
                raise UserError(f"{key}.{listed}: found {name!r}, expected one of {', '.join(names)}")
    return Claim(
        entry["id"],
        " ".join(entry["sentence"].split()),
        " ".join(entry["source"].split()),
        " ".join(entry["statistic"].split()),
        kind.every,
        region(entry["threshold"], f"{key}.threshold"),
        entry.get("needs_seeds", True),
        entry.get("point", False),
        entry.get("lower_bound", False),
        tuple(known_in),
        {
            setting.name: _plan(entry, setting, key)
            for setting in settings
            if setting.name in chosen and (setting.claims is None or entry["id"] in setting.claims)
        },
    )


def _plan(entry: dict[str, Any], setting: Setting, key: str) -> tuple[Planned, ...]:
    kind = KINDS[entry["test"]]
    planned: list[Planned] = []
    for binding in _bindings(entry.get("each"), setting, f"{key}.each"):
        known = {**setting.values, **binding}
        cells = {
            name: _resolve(cell, known, f"{key}.cells.{name}", setting)
            for name, cell in entry["cells"].items()
        }
        common = _resolve(entry.get("where", {}), known, f"{key}.where", setting)
        _selector(common, f"{key}.where", ())
        own = {
            name: _resolve(entry[name], known, f"{key}.{name}", setting)
            for name in kind.settings
            if name in entry
        }
        for name, cell in cells.items():
            _mapping(cell, f"{key}.cells.{name}")
        for comparison in kind.expand(cells, own, key):
            requests = tuple(
                _request(
                    entry,
                    setting,
                    {**setting.where, **common},
                    cell,
                    f"{key}.cells.{name}" if name in cells else f"{key}.cells.cell",
                )
                for name, cell in comparison.cells.items()
            )
            # A list is what the comparison is made of, and is told by its own label.
            said = [f"{name} {value}" for name, value in binding.items() if not isinstance(value, list)]
            label = ", ".join([*said, *[comparison.label] * bool(comparison.label)])
            planned.append(Planned(label, requests, comparison.combine))
    return tuple(planned)


def _request(
    entry: dict[str, Any], setting: Setting, common: dict[str, Any], cell: Mapping[str, Any], key: str
) -> Request:
    _selector(cell, key, _MEASURED)
    metric = cell.get("metric", entry["metric"])
    inference = cell.get("inference", entry.get("inference", "encoder"))
    split = cell.get("split", entry.get("split", default_split(metric)))
    for name, value in (("inference", inference), ("split", split)):
        _text(value, f"{key}.{name}")
    own = {column: value for column, value in cell.items() if column not in _MEASURED}
    return Request(key, {**common, **own}, metric, inference, split, setting.where)


def _bindings(each: Any, setting: Setting, key: str) -> list[dict[str, Any]]:
    """The values of `each`: every combination of a mapping's lists, or a list's mappings."""
    if each is None:
        return [{}]
    each = _resolve(each, setting.values, key, setting)
    if isinstance(each, list):
        for place, item in enumerate(each):
            _mapping(item, f"{key}[{place}]")
        return [dict(item) for item in each]
    _mapping(each, key)
    lists = [_list(values, f"{key}.{name}") for name, values in each.items()]
    return [dict(zip(each, combination, strict=True)) for combination in product(*lists)]


def _resolve(value: Any, known: Mapping[str, Any], key: str, setting: Setting) -> Any:
    """The value with each text `$name` replaced by what it stands for."""
    if isinstance(value, dict):
        return {name: _resolve(item, known, f"{key}.{name}", setting) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, known, f"{key}[{place}]", setting) for place, item in enumerate(value)]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in known:
            names = ", ".join(f"${name}" for name in sorted(known)) or "no such value"
            raise UserError(f"{key}: found {value} in setting {setting.name!r}, expected {names}")
        return known[value[1:]]
    return value


def _columns() -> list[str]:
    return [column for column in RUN_COLUMNS if column != "seed"]


def _selector(value: Any, key: str, more: tuple[str, ...]) -> None:
    """A mapping from run columns, and `more`, to values of their types."""
    _mapping(value, key)
    allowed = [*_columns(), *more]
    for name, item in value.items():
        if name not in allowed:
            raise UserError(f"{key}: unknown key {name!r}, expected one of {', '.join(allowed)}")
        whole = name not in more and pa.types.is_integer(RUN_COLUMNS[name])
        if whole and (isinstance(item, bool) or not isinstance(item, int)):
            raise UserError(f"{key}.{name}: found {item!r}, expected a whole number")
        if not whole:
            _text(item, f"{key}.{name}")


def _keys(value: Any, key: str, allowed: tuple[str, ...], required: tuple[str, ...]) -> None:
    _mapping(value, key)
    for name in value:
        if name not in allowed:
            raise UserError(f"{key}: unknown key {name!r}, expected one of {', '.join(allowed)}")
    for name in required:
        if name not in value:
            raise UserError(f"{key}: no {name!r}, expected {', '.join(required)}")


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{key}: found {value!r}, expected a mapping")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{key}: found {value!r}, expected a list")
    return value


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{key}: found {value!r}, expected a text")
    return value


def _number(value: Any, key: str, kind: type[int] | type[float]) -> Any:
    allowed = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise UserError(f"{key}: found {value!r}, expected a {'whole ' if kind is int else ''}number")
    return kind(value)
