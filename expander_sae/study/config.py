"""Reading and checking a configuration: every mistake found, each with its key, value and what is allowed."""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.storage.workflow_files import SCHEMAS
from expander_sae.study import presets
from expander_sae.study.blocks import Config
from expander_sae.study.config_relations import semantic_errors
from expander_sae.study.schema_tables import filled

_MOST_VALUES = 1_000_000
_LARGEST = 1e15
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

SCHEMA = SCHEMAS / "config.schema.yaml"


def load_config(source: Mapping[str, Any] | str | Path, schema: str | Path = SCHEMA) -> Config:
    """A checked copy of a configuration, a mapping or a YAML file, with every default filled in.

    Scalars that stand for a list stay as they are; `Study` reads both.

    Raises:
        UserError: one line for each mistake.
    """
    if isinstance(source, str | Path):
        source = read_yaml(Path(source), "no such configuration file")
    try:
        config = _plain(source, count(1))
        rules = filled(parsed(Path(schema).read_text(encoding="utf-8")))
    except RecursionError:
        raise UserError("config: found values nested without end, expected a few levels") from None
    if isinstance(config, dict):
        _inherit_presets(config)
    _refuse(text for _, text in sorted(schema_errors(config, rules), key=itemgetter(0)))
    _completed(config, rules, rules)
    _refuse(semantic_errors(config))
    return config


def _refuse(errors: Iterable[str]) -> None:
    if found := dict.fromkeys(errors):
        raise UserError("\n".join(f"config: {text}" for text in found))


def read_yaml(path: Path, missing: str) -> Any:
    """What a YAML file holds; `missing` is said of one that is not there."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: {missing}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # dates and numbers that are none
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None


@lru_cache(maxsize=2)
def parsed(schema: str) -> dict[str, Any]:
    """A schema from its text, which is parsed once; by libyaml where it is, in a tenth of the time."""
    import yaml

    return yaml.load(schema, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _plain(value: Any, counter: Iterator[int]) -> Any:
    """Copy of a YAML value that shares nothing with it; references can make a short file endless."""
    if next(counter) > _MOST_VALUES:
        raise UserError(f"config: found more than {_MOST_VALUES:,} values, expected fewer")
    if isinstance(value, Mapping):
        return {key: _plain(item, counter) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, counter) for item in value]
    return copy.copy(value)


def _inherit_presets(config: Config) -> None:
    models, corpus = config.get("models"), config.setdefault("corpus", {"name": "docstrings"})
    listed = models if isinstance(models, list) else []
    for entries, known in ((listed, presets.MODELS), ([corpus], presets.CORPORA)):
        for entry in entries:
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                entry |= {**known.get(entry["name"], {}), **entry}


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The schema with its `$ref`, if any, merged in."""
    if "$ref" not in schema:
        return schema
    target: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**_resolve(target, root), **{key: value for key, value in schema.items() if key != "$ref"}}


def _completed(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """The value with every default, and with numbers as the schema asks for them, so that equal configs
    hash equal: 1500 for 1500.0 where it says integer, and the other way round."""
    schema = _resolve(schema, root)
    if isinstance(value, dict):
        for key, rule in schema.get("properties", {}).items():
            rule = _resolve(rule, root)
            if key not in value and "default" in rule:
                value[key] = copy.deepcopy(rule["default"])
            if key in value:
                value[key] = _completed(value[key], rule, root)
    elif isinstance(value, list) and "items" in schema:
        value[:] = [_completed(item, schema["items"], root) for item in value]
    elif isinstance(value, float) and value.is_integer() and "number" not in _types(schema):
        return int(value)
    elif isinstance(value, int) and not isinstance(value, bool) and "number" in _types(schema):
        return float(value)
    return value


def _types(schema: dict[str, Any]) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def key_path(parts: list[Any]) -> str:
    """``grid.d[1]`` from ``["grid", "d", 1]``."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(top level)"


def schema_errors(config: Any, rules: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, message) of everything in which `config` breaks the JSON schema `rules`."""
    from jsonschema import Draft202012Validator

    yield from _unusual_values(config, [])
    for error in Draft202012Validator(rules).iter_errors(config):
        yield from _explain(error)


def _unusual_values(value: Any, path: list[Any]) -> Iterator[tuple[str, str]]:
    """What slips through every bound of a schema: NaN, infinity, absurd numbers, control characters."""
    here = key_path(path)
    if isinstance(value, float) and not math.isfinite(value):
        yield here, f"{here}: found {value}, expected a finite number"
    elif isinstance(value, int | float) and abs(value) > _LARGEST:
        yield here, f"{here}: found {_shown(value)}, expected at most {_LARGEST:.0e}"
    elif isinstance(value, str) and _CONTROL.search(value):
        yield here, f"{here}: found {_shown(value)}, expected text without control characters"
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _unusual_values(item, [*path, key])


def _explain(error: Any) -> Iterator[tuple[str, str]]:
    """(key, message) of each mistake in one jsonschema error."""
    path, found, rule = list(error.absolute_path), error.instance, error.validator_value
    here = key_path(path)
    prefix = f"{here}: found {_shown(found)}, expected "
    unit = f" ({error.schema['description']})" if "description" in error.schema else ""
    match error.validator:
        case "additionalProperties":
            known = list(error.schema["properties"])
            for key in (str(key) for key in found if key not in known):
                where = key_path([*path, key])
                meant = ", ".join(known) + _meant(key, known)
                yield where, f"{where}: unknown key; expected one of {meant}"
        case "required":
            for where in (key_path([*path, key]) for key in rule if key not in found):
                yield where, f"{where}: missing"
        case "type":
            yield here, prefix + " or ".join(_TYPE_WORDS[name] for name in _types(error.schema)) + unit
        case "enum":
            if not isinstance(found, list):  # a list is checked item by item
                yield here, prefix + f"one of {', '.join(map(str, rule))}{_meant(found, rule)}"
        case "minimum" | "maximum" | "exclusiveMinimum":
            yield here, f"{prefix}{_BOUNDS[error.validator]} {rule}{unit}"
        case "minItems" | "minLength":
            what = "items" if error.validator == "minItems" else "character"
            yield here, f"{prefix}at least {rule} {what}"
        case "uniqueItems":
            yield here, prefix + "no item twice"
        case "pattern":
            text = error.schema.get("description", f"text like {rule}")
            yield here, prefix + text + _meant(found, error.schema.get("examples", []))
        case _:
            yield here, prefix + f"{error.validator} {rule}"


_BOUNDS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}
_TYPE_WORDS = {"object": "a mapping of keys to values", "array": "a list", "string": "text", "null": "null"}
_TYPE_WORDS |= {"integer": "a whole number", "number": "a number", "boolean": "true or false"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _meant(found: Any, known: list[Any]) -> str:
    close = difflib.get_close_matches(str(found), [str(item) for item in known], n=1)
    return f" (did you mean {close[0]}?)" if close else ""
