"""Configurations and tensors of other libraries' folders, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from expander_sae.errors import UserError, readable
from expander_sae.storage.arrays import as_tensor
from expander_sae.storage.files import read_json

T = TypeVar("T")
_KINDS: dict[type, str] = {int: "a whole number", str: "a text", dict: "a mapping", bool: "true or false"}


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in another library's JSON file."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {type(config).__name__}, expected a mapping")
    return config


def required(config: Mapping[str, Any], key: str, kind: type[T], path: Path) -> T:
    """An entry of a configuration that must be there and of this kind."""
    value = config.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{path}: {key} {value!r}, expected {_KINDS[kind]}")
    return value


def flag(config: Mapping[str, Any], key: str, otherwise: bool, path: Path) -> bool:
    """A yes or no of a configuration; `otherwise` where it is absent or null."""
    return otherwise if config.get(key) is None else required(config, key, bool, path)


def same_size(config: Mapping[str, Any], sizes: Mapping[str, int], path: Path) -> None:
    """Raise `UserError` where a configuration states another size than the tensors have."""
    for key, size in sizes.items():
        if config.get(key) is not None and required(config, key, int, path) != size:
            raise UserError(f"{path}: {key} {config[key]}, expected {size}, which the tensors have")


def read_tensors(path: Path, names: tuple[str, ...], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Tensors of another library's safetensors file; see `whole`."""
    with readable(path, "a whole safetensors file", safetensors.SafetensorError):
        stored = load_file(path)
    return whole(stored, names, path, dtype)


def whole(
    stored: Mapping[str, Any], names: tuple[str, ...], path: Path, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """These tensors and no others, as float32.

    Args:
        stored: what the file holds.
        names: what it must hold.
        path: the file, for messages.
        dtype: what the other library rounds them to when it loads them.

    Raises:
        UserError: one is missing, is not known, is no floating-point tensor, or has NaN or infinite values.
    """
    missing = sorted(name for name in names if not isinstance(stored.get(name), Tensor))
    if missing:
        found = ", ".join(sorted(map(str, stored))) or "none"
        raise UserError(f"{path}: no tensor {missing[0]}, found {found}")
    others = sorted(map(str, stored.keys() - set(names)))
    if others:
        known = f"expected {', '.join(names)} and no other"
        raise UserError(f"{path}: tensor {others[0]}, {known}: it may change what is computed")
    tensors = {name: as_tensor(stored[name], f"{path}: {name}") for name in names}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UserError(f"{path}: {name} of {tensor.dtype}, expected floating-point numbers")
        if not bool(tensor.float().isfinite().all()):
            raise UserError(f"{path}: {name} has values that are NaN or infinite, expected none")
    return {name: (tensors[name] if dtype is None else tensors[name].to(dtype)).float() for name in names}
