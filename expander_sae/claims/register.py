"""Reading workflow/claims.yaml: claims written down before the data, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.claims.comparisons import Planned, plan
from expander_sae.claims.kinds import KINDS
from expander_sae.claims.settings import COLUMNS, Setting, parse_setting
from expander_sae.claims.threshold import Region, region
from expander_sae.claims.yaml_values import mapping_of, one_of, typed
from expander_sae.errors import UserError

_TEXTS = ("id", "sentence", "source", "statistic", "test", "metric")
_REQUIRED = (*_TEXTS, "cells", "threshold")
_OPTIONAL = ("inference", "split", "where", "each", "point", "lower_bound", "known_in")


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in the file.

    every: whether all of its comparisons must hold, or one. point: a number is compared as it stands, without
    an interval, and needs no seeds. lower_bound: the metric is a lower bound of what the claim says is
    small, so that it can refute the claim and not prove it. known_in: names of settings whose rows had been
    read when the claim was written; it tests nothing there. plans: its comparisons, by name of each setting
    that judges it.
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
    plans: Mapping[str, tuple[Planned, ...]]


@dataclass(frozen=True)
class Register:
    """Every claim, and how it is decided. The first setting is always judged."""

    confidence: float
    minimum_seeds: int
    draws: int
    settings: tuple[Setting, ...]
    claims: tuple[Claim, ...]


def read_register(path: str | Path) -> Register:
    """The claims of a YAML file.

    Raises:
        UserError: there is no such file, or it holds a mistake; the first one is named by its key.
    """
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
    required = ("settings", "claims")
    mapping_of(data, name, ("confidence", "minimum_seeds", "draws", *required), required)
    confidence = typed(data.get("confidence", 0.95), f"{name}: confidence", float)
    if not 0 < confidence < 1:
        raise UserError(f"{name}: confidence: found {confidence}, expected a number between 0 and 1")
    minimum = typed(data.get("minimum_seeds", 5), f"{name}: minimum_seeds", int)
    draws = typed(data.get("draws", 2000), f"{name}: draws", int)
    if draws < 100:
        raise UserError(f"{name}: draws: found {draws}, expected at least 100")
    settings = tuple(
        parse_setting(entry, f"{name}: settings[{place}]")
        for place, entry in enumerate(typed(data["settings"], f"{name}: settings", list))
    )
    claims = tuple(
        _claim(entry, settings, f"{name}: claims[{place}]")
        for place, entry in enumerate(typed(data["claims"], f"{name}: claims", list))
    )
    ids = [claim.id for claim in claims]
    for key, found in (("settings", [setting.name for setting in settings]), ("claims", ids)):
        twice = next((item for place, item in enumerate(found) if item in found[:place]), None)
        if twice is not None:
            raise UserError(f"{name}: {key}: found {twice!r} twice, expected it once")
    for setting in settings:
        for key, those in (("claims", setting.claims or ()), ("all_but", setting.all_but)):
            for one in those:
                one_of(one, f"{name}: settings ({setting.name}).{key}", ids, "the id of a claim")
    return Register(confidence, minimum, draws, settings, claims)


def _claim(entry: Any, settings: tuple[Setting, ...], key: str) -> Claim:
    typed(entry, key, dict)
    if isinstance(entry.get("id"), str):
        key = f"{key} ({entry['id']})"
    kind = KINDS[one_of(entry.get("test"), f"{key}.test", KINDS)]
    needed = [name for name in kind.options if name in ("over", "values")]
    mapping_of(entry, key, (*_REQUIRED, *_OPTIONAL, *kind.options), (*_REQUIRED, *needed))
    texts = {name: " ".join(typed(entry[name], f"{key}.{name}", str).split()) for name in _TEXTS}
    cells = typed(entry["cells"], f"{key}.cells", dict)
    if not cells or (kind.cells is not None and set(cells) != set(kind.cells)):
        expected = ", ".join(kind.cells or ["one or more"])
        raise UserError(f"{key}.cells: found {', '.join(cells) or 'none'}, expected {expected}")
    if "over" in entry:
        one_of(entry["over"], f"{key}.over", COLUMNS)
    known_in = typed(entry.get("known_in", []), f"{key}.known_in", list)
    for name in known_in:
        one_of(name, f"{key}.known_in", [setting.name for setting in settings])
    return Claim(
        texts["id"],
        texts["sentence"],
        texts["source"],
        texts["statistic"],
        kind.every,
        region(entry["threshold"], f"{key}.threshold"),
        typed(entry.get("point", False), f"{key}.point", bool),
        typed(entry.get("lower_bound", False), f"{key}.lower_bound", bool),
        tuple(known_in),
        {setting.name: plan(entry, setting, key) for setting in settings if setting.judges(texts["id"])},
    )
