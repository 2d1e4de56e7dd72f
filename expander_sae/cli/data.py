"""Read activations and weights that a user names, and say what is wrong with them."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.pool import Pool
from expander_sae.api import load
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import UserError
from expander_sae.runs import WEIGHTS
from expander_sae.seals import agree, check_seal

_PIECE = 65536
"""Rows that are looked at or converted at a time."""

_KINDS = ".npy, .safetensors, .pt, a folder of Parquet shards or a pool's manifest (.json)"


def device_of(name: str) -> torch.device:
    """The device, once torch has been asked whether it is there."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device: found {name!r}, which torch cannot use ({_first_line(error)})") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device: found {name!r}, expected cpu, cuda or cuda:INDEX")
    return device


def load_weights(options: argparse.Namespace) -> tuple[SparseAutoencoder, dict[str, Any]]:
    """(autoencoder, about) of `options.weights`, whatever `expander_sae.load` reads."""
    autoencoder = load(options.weights, device_of(options.device), options.backend)
    return autoencoder, autoencoder.about


def stored_bytes(given: Path) -> int:
    """Bytes of the weights file, of that of a run folder, or of all files of another library's folder."""
    if given.is_dir() and not (given / WEIGHTS).is_file():
        return sum(file.stat().st_size for file in given.iterdir() if file.is_file())
    return (given / WEIGHTS if given.is_dir() else given).stat().st_size


def read_activations(
    path: Path,
    tensor: str | None = None,
    column: str = "activation",
    split: str = "train",
    tokens: int | None = None,
    m: int | None = None,
) -> np.ndarray:
    """Activations [N, m] as float32; a .npy or pool of float32 is mapped, not read into memory.

    A tensor [B, T, m] counts as B·T rows. Nothing that could run code is loaded: .npy without
    pickled objects, .pt with torch's weights-only reader. Pools and sealed shards are checked, every byte
    (a second for 1.5 GB); Parquet files of others have no seal and are read as they are.

    Raises:
        UserError: another kind of file, a pool or sealed shard that was altered, no such tensor, a value
            that is not finite, another width than `m`, or fewer rows than `tokens`.
    """
    if path.is_dir() or path.suffix == ".parquet":
        found = _parquet(path, column, split)
    elif path.suffix == ".json":
        pool = Pool.open(path)
        found = np.memmap(pool.file, dtype="<f4", mode="c", shape=(pool.tokens, pool.m))
    elif not path.is_file():
        raise UserError(f"{path}: no such file")
    elif path.suffix == ".npy":
        found = _npy(path)
    elif path.suffix == ".safetensors":
        found = _safetensors(path, tensor)
    elif path.suffix in (".pt", ".pth"):
        found = _torch(path, tensor)
    else:
        raise UserError(f"{path}: suffix {path.suffix!r}, expected {_KINDS}")
    return _checked(found, path, tokens, m)


def _checked(found: np.ndarray, path: Path, tokens: int | None, m: int | None) -> np.ndarray:
    if found.ndim < 2 or found.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: shape {list(found.shape)} of {found.dtype}, expected numbers of shape [N, m]"
        )
    found = found.reshape(-1, found.shape[-1])
    if m is not None and found.shape[1] != m:
        raise UserError(f"{path}: activations of width {found.shape[1]}, expected m = {m}")
    if tokens is not None:
        if len(found) < tokens:
            raise UserError(f"{path}: {len(found)} rows, expected at least --tokens {tokens}")
        found = found[:tokens]
    if not found.size:
        raise UserError(f"{path}: shape {list(found.shape)}, expected at least one row")
    if found.dtype != np.float32:
        found = found.astype(np.float32)
    for start in range(0, len(found), _PIECE):
        wrong = ~np.isfinite(found[start : start + _PIECE]).all(axis=1)
        if wrong.any():
            row = start + int(wrong.argmax())
            raise UserError(f"{path}: row {row} has a value that is not finite, expected finite activations")
    return found


def _npy(path: Path) -> np.ndarray:
    try:
        # Copy on write: torch warns of arrays that it could not write to.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable .npy of numbers ({_first_line(error)})") from None


def _safetensors(path: Path, name: str | None) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            keys = list(stored.keys())  # the handle is no mapping: it cannot be iterated over
            names = [key for key in keys if len(stored.get_slice(key).get_shape()) >= 2]
            return _as_array(stored.get_tensor(_choose(path, name, names)))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({_first_line(error)})") from None


def _torch(path: Path, name: str | None) -> np.ndarray:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors, and loading that could run code; expected a tensor or a "
            "dict of tensors (torch.save(tensor, …)), .npy or .safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable .pt file ({_first_line(error)})") from None
    if isinstance(stored, dict):
        names = [key for key, value in stored.items() if isinstance(value, torch.Tensor) and value.dim() >= 2]
        stored = stored[_choose(path, name, names)]
    if not isinstance(stored, torch.Tensor):
        raise UserError(f"{path}: holds a {type(stored).__name__}, expected a tensor or a dict of tensors")
    return _as_array(stored)


def _choose(path: Path, name: str | None, names: Sequence[str]) -> str:
    if name is not None and name in names:
        return name
    listed = ", ".join(map(str, names[:8])) or "none"
    if name is not None:
        raise UserError(f"{path}: --tensor {name}: no such matrix, found {listed}")
    if len(names) != 1:
        raise UserError(f"{path}: {len(names)} matrices ({listed}), expected one or --tensor NAME")
    return names[0]


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    # numpy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _parquet(path: Path, column: str, split: str) -> np.ndarray:
    """All rows of the files in order, in one array: memory 4·N·m bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise UserError(f"{path}: found no .parquet file, expected a folder of activation shards")
    numbered = {file: re.fullmatch(r"(.+)-\d+", file.stem) for file in files}
    if path.is_dir() and all(numbered.values()):
        splits = sorted({match.group(1) for match in numbered.values() if match})
        files = [file for file, match in numbered.items() if match and match.group(1) == split]
        if not files:
            raise UserError(f"{path}: no shard of --split {split}, found {', '.join(splits)}")
    pieces: list[np.ndarray] = []
    for file in files:
        sealed = check_seal(file)
        try:
            stored = pq.ParquetFile(file)
            if not agree(sealed, stored.metadata.metadata or {}):
                raise OSError("its seal is damaged")
            if column not in stored.schema_arrow.names:
                names = ", ".join(stored.schema_arrow.names)
                raise UserError(f"{file}: no column {column!r}, found {names}; say --column")
            for batch in stored.iter_batches(columns=[column]):
                pieces.append(_matrix(batch.column(0), file, column))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file}: not a readable Parquet file ({_first_line(error)})") from None
    if len({piece.shape[1] for piece in pieces}) > 1:
        raise UserError(f"{path}: lists of different lengths in column {column!r}, expected one width")
    return np.concatenate(pieces) if pieces else np.empty((0, 1), np.float32)


def _matrix(lists: Any, file: Path, column: str) -> np.ndarray:
    flat = lists.flatten().to_numpy(zero_copy_only=False) if hasattr(lists, "flatten") else np.empty(0)
    if flat.dtype.kind not in "fiu" or len(flat) % max(len(lists), 1) or not len(lists):
        raise UserError(f"{file}: column {column!r} holds {lists.type}, expected lists of m numbers")
    return flat.reshape(len(lists), -1)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
