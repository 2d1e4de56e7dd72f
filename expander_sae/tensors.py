"""safetensors files: whole or absent, and equal bytes for equal content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.files import atomic_path, canonical_json

_KEY = "expander_sae"


def save_tensors(tensors: dict[str, Tensor], path: str | Path, about: dict[str, Any]) -> None:
    """Write tensors and a JSON value atomically.

    All of `about` is one metadata entry: safetensors writes several in an order of its own, which
    would give equal content other bytes at each run.

    Raises:
        UserError: the file cannot be written, for example on a full disk.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_path(path) as temporary:
            save_file(content, temporary, {_KEY: canonical_json(about)})
            temporary.chmod(0o644)  # safetensors writes files that only their owner may read
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, about) of a file that `save_tensors` wrote.

    Raises:
        UserError: no such file, not a whole safetensors file, or not one of ours.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as stored:
            about = (stored.metadata() or {}).get(_KEY)
            names = list(stored.keys())  # the handle is no mapping: it cannot be iterated over
            tensors = {name: stored.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, safetensors.SafetensorError) as error:
        again = "remove it to have it made again"
        raise UserError(f"{path}: not a whole safetensors file ({error}); {again}") from None
    if about is None:
        raise UserError(f"{path}: no metadata {_KEY!r}, expected a file that expander-sae wrote")
    return tensors, json.loads(about)
