"""Configurations and tensors of other libraries' folders, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.storage.files import read_json

T = TypeVar("T")
_KINDS: dict[type, str] = {int: "a whole number", str: "a text", dict: "a mapping"}


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in another library's JSON file.

    Raises:
        UserError: no such file, no JSON, or no mapping.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {type(config).__name__}, expected a mapping")
    return config


def required(config: dict[str, Any], key: str, kind: type[T], path: Path) -> T:
    """An entry of a configuration that must be there.

    Raises:
        UserError: it is missing or of another kind.
    """
    value = config.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: {key} {value!r}, expected {_KINDS[kind]}")
    return value


def read_tensors(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Float32 tensors of another library's safetensors file.

    Raises:
        UserError: unreadable, or a tensor is missing.
    """
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    missing = sorted(set(names) - stored.keys())
    if missing:
        raise UserError(f"{path}: no tensor {missing[0]}, found {', '.join(sorted(stored))}")
    return {name: stored[name].float() for name in names}
