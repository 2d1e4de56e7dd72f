"""safetensors files: whole or absent, and equal bytes for equal content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN, atomic_path, canonical_json
from expander_sae.storage.safetensors_header import KEY, SEALED_KEY
from expander_sae.storage.seals import KEY as SEAL
from expander_sae.storage.seals import UNSEALED, check_seal, seal


def save_tensors(tensors: dict[str, Tensor], path: str | Path, about: dict[str, Any]) -> None:
    """Write tensors and a JSON value atomically, with a seal over every byte of the file.

    All of `about` is one metadata entry: safetensors writes several in an order of its own, which would give
    equal content other bytes at each run. The seal is first in it: nothing that `about` says passes for it.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    entry = f'{{"{SEAL}":"{UNSEALED}","about":{canonical_json(about)}}}'
    try:
        with atomic_path(path) as temporary:
            save_file(content, temporary, {SEALED_KEY: entry})
            temporary.chmod(0o644)  # safetensors writes files that only their owner may read
            seal(temporary)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, about) of a file that `save_tensors` wrote; `UserError` where a byte is altered."""
    sealed = check_seal(path)
    try:
        with safetensors.safe_open(str(path), framework="pt") as stored:
            metadata = stored.metadata() or {}
            names = list(stored.keys())  # the handle is no mapping: it cannot be iterated over
            tensors = {name: stored.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); {AGAIN}") from None
    key = SEALED_KEY if sealed else KEY
    if list(metadata) != [key]:
        raise UserError(
            f"{path}: found metadata {sorted(metadata)}, expected {key!r} of a file that expander-sae wrote"
        )
    try:
        entry = json.loads(metadata[key])
        about = entry["about"] if sealed else entry
        if not isinstance(about, dict):
            raise TypeError(f"found {type(about).__name__}, expected a mapping")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: unreadable metadata {key!r} ({error}); {AGAIN}") from None
    return tensors, about
