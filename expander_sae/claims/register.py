"""Reading workflow/claims.yaml: claims written down before the data, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.claims.comparisons import Planned, plan
from expander_sae.claims.kinds import KINDS
from expander_sae.claims.settings import Setting
from expander_sae.claims.threshold import Region, region
from expander_sae.errors import UserError
from expander_sae.storage.workflow_files import SCHEMAS
from expander_sae.study.config import parsed, read_yaml, schema_errors

SCHEMA = SCHEMAS / "claims.schema.yaml"
"""The form of the file."""


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in the file, and its comparisons (`plans`) by name of each setting that judges it.

    All of them must hold (`every`), or one. A `point` is compared as it stands, without an interval or
    seeds. Where the metric is a `lower_bound` of what the claim says is small, it can refute the claim and
    not prove it. In the settings `known_in`, whose rows had been read before, it tests nothing.
    """

    id: str
    sentence: str
    source: str
    statistic: str
    every: bool
    region: Region
    point: bool
    lower_bound: bool
    known_in: tuple[str, ...]
    topic: str
    plans: Mapping[str, tuple[Planned, ...]]


@dataclass(frozen=True)
class Register:
    """Every claim, and how it is decided. The first setting and its parts are always judged."""

    confidence: float
    minimum_seeds: int
    draws: int
    settings: tuple[Setting, ...]
    claims: tuple[Claim, ...]


def read_register(path: str | Path) -> Register:
    """The claims of a YAML file.

    Raises:
        UserError: there is no such file, or it holds mistakes, each named by its key.
    """
    path = Path(path)
    return parse_register(read_yaml(path, "no such file, expected the list of claims"), path.name)


def parse_register(data: Any, name: str = "claims.yaml") -> Register:
    """The same from the file's content; `name` is the file's name in messages."""
    errors = dict.fromkeys(text for _, text in schema_errors(data, parsed(SCHEMA.read_text("utf-8"))))
    if errors:
        raise UserError("\n".join(f"{name}: {_with_id(text, data)}" for text in errors))
    settings: list[Setting] = []
    for place, entry in enumerate(data["settings"]):
        wholes = {setting.name: setting for setting in settings if setting.part_of is None}
        settings.append(Setting.of(entry, wholes, f"{name}: settings[{place}]"))
    keys = [f"{name}: {_with_id(f'claims[{place}]', data)}" for place in range(len(data["claims"]))]
    topics = _topics(data, name)
    claims = tuple(
        _claim(entry, settings, topics, key) for entry, key in zip(data["claims"], keys, strict=True)
    )
    ids = [claim.id for claim in claims]
    for key, found in (("settings", [setting.name for setting in settings]), ("claims", ids)):
        if twice := [item for place, item in enumerate(found) if item in found[:place]]:
            raise UserError(f"{name}: {key}: found {twice[0]!r} twice, expected it once")
    for setting in settings:
        for key, those in (("claims", setting.claims or ()), ("all_but", setting.all_but)):
            _each_in(those, ids, f"{name}: settings ({setting.name}).{key}", "the id of a claim")
    numbers = (data.get("confidence", 0.95), data.get("minimum_seeds", 5), data.get("draws", 2000))
    return Register(*numbers, tuple(settings), claims)


def _topics(data: Any, name: str) -> dict[str, str]:
    """Id of a claim → its topic: none of them, or one for every claim of the file."""
    found: dict[str, str] = {}
    ids = [entry["id"] for entry in data["claims"]]
    for topic, those in data.get("topics", {}).items():
        _each_in(those, ids, f"{name}: topics.{topic}", "the id of a claim")
        for one in those:
            if one in found:
                raise UserError(f"{name}: topics.{topic}: found {one!r}, which {found[one]!r} has too")
            found[one] = topic
    if found and (without := next((one for one in ids if one not in found), None)):
        raise UserError(f"{name}: topics: found none with the claim {without!r}, expected one")
    return found


def _with_id(text: str, data: Any) -> str:
    """A message about claims[3] with that claim's id, where it has one."""

    def named(found: re.Match[str]) -> str:
        entry = data["claims"][int(found[1])]
        known = isinstance(entry, dict) and isinstance(entry.get("id"), str)
        return f"{found[0]} ({entry['id']})" if known else found[0]

    return re.sub(r"^claims\[(\d+)\]", named, text)


def _each_in(found: Iterable[str], known: Collection[str], key: str, expected: str = "") -> None:
    for one in found:
        if one not in known:
            raise UserError(f"{key}: found {one!r}, expected {expected or 'one of ' + ', '.join(known)}")


def _claim(entry: dict[str, Any], settings: Sequence[Setting], topics: Mapping[str, str], key: str) -> Claim:
    _each_in([entry["test"]], KINDS, f"{key}.test")
    kind, cells = KINDS[entry["test"]], entry["cells"]
    if not cells or (kind.cells is not None and set(cells) != set(kind.cells)):
        expected = ", ".join(kind.cells or ["one or more"])
        raise UserError(f"{key}.cells: found {', '.join(cells) or 'none'}, expected {expected}")
    others = {option for other in KINDS.values() for option in other.options if option not in kind.options}
    for name in others.intersection(entry):
        raise UserError(f"{key}.{name}: found it with test {entry['test']}, which has no such key")
    wholes = [setting.name for setting in settings if setting.part_of is None]
    _each_in(entry.get("known_in", []), wholes, f"{key}.known_in")
    sentence, source, statistic = (
        " ".join(entry[text].split()) for text in ("sentence", "source", "statistic")
    )
    return Claim(
        entry["id"],
        sentence,
        source,
        statistic,
        kind.every,
        region(entry["threshold"], f"{key}.threshold"),
        entry.get("point", False),
        entry.get("lower_bound", False),
        tuple(entry.get("known_in", ())),
        topics.get(entry["id"], ""),
        {setting.name: plan(entry, setting, key) for setting in settings if setting.judges(entry["id"])},
    )
