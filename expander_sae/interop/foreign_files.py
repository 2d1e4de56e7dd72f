"""Configurations and tensors of other libraries' folders, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from expander_sae.errors import UserError, readable
from expander_sae.storage.files import read_json

T = TypeVar("T")
_KINDS: dict[type, str] = {int: "a whole number", str: "a text", dict: "a mapping"}


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in another library's JSON file."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {type(config).__name__}, expected a mapping")
    return config


def required(config: dict[str, Any], key: str, kind: type[T], path: Path) -> T:
    """An entry of a configuration that must be there and of this kind."""
    value = config.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: {key} {value!r}, expected {_KINDS[kind]}")
    return value


def read_tensors(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Tensors of another library's safetensors file as float32; all of them must be there."""
    with readable(path, "a whole safetensors file", safetensors.SafetensorError):
        stored = load_file(path)
    missing = sorted(set(names) - stored.keys())
    if missing:
        raise UserError(f"{path}: no tensor {missing[0]}, found {', '.join(sorted(stored))}")
    return {name: stored[name].float() for name in names}
