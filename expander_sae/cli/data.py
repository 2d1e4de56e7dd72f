"""Read activations and weights that a user names, and say what is wrong with them."""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.pool import Pool
from expander_sae.api import load
from expander_sae.errors import UserError, readable
from expander_sae.machine.device import resolve_device
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.inference import Inference, inferences
from expander_sae.storage.arrays import as_tensor
from expander_sae.storage.files import file_sizes
from expander_sae.training.run_folder import WEIGHTS

_PIECE = 65536
"""Rows that are looked at or converted at a time."""


def inference_of(name: str) -> Inference:
    """The inference that `--inference` names."""
    try:
        return inferences(name)
    except UserError as error:
        raise UserError(f"--{error}") from None


def load_weights(options: argparse.Namespace) -> SparseAutoencoder:
    """The autoencoder of `options.weights`, whatever `expander_sae.load` reads."""
    return load(options.weights, resolve_device(options.device, "--device"), options.backend)


def given_activations(options: argparse.Namespace, m: int | None = None, fewer: bool = False) -> np.ndarray:
    """The activations that the options of `arguments.add_activations` name; see `read_activations`."""
    picked = (options.tensor, options.column, options.split, options.tokens)
    return read_activations(options.activations, *picked, m, fewer)


def stored_bytes(given: Path) -> int:
    """Bytes of the weights file, of that of a run folder, or of all files of another library's folder."""
    if given.is_dir() and not (given / WEIGHTS).is_file():
        return sum(file_sizes(given).values())
    return (given / WEIGHTS if given.is_dir() else given).stat().st_size


def read_activations(
    path: Path,
    tensor: str | None = None,
    column: str = "activation",
    split: str = "train",
    tokens: int | None = None,
    m: int | None = None,
    fewer: bool = False,
) -> np.ndarray:
    """Activations [N, m] as float32; a .npy, .pt or pool of float32 is mapped, not read into memory.

    Of other files at most the rows asked for are held, once. fewer: a file may have fewer than `tokens`.

    A tensor [B, T, m] counts as B·T rows. Nothing that could run code is loaded: .npy without
    pickled objects, .pt with torch's weights-only reader. Pools and sealed shards are checked, every byte
    (a second for 1.5 GB); Parquet files of others have no seal and are read as they are.

    Raises:
        UserError: another kind of file, a pool or sealed shard that was altered, no such tensor, a value
            that is not finite, another width than `m`, or fewer rows than `tokens`.
    """
    if path.is_dir() or path.suffix == ".parquet":
        found = _parquet(path, column, split, tokens)
    elif path.suffix == ".json":
        pool = Pool.open(path)
        found = np.memmap(pool.file, dtype="<f4", mode="c", shape=(pool.tokens, pool.m))
    elif not path.is_file():
        raise UserError(f"{path}: no such file")
    elif path.suffix == ".npy":
        found = _npy(path)
    elif path.suffix == ".safetensors":
        found = _safetensors(path, tensor, tokens)
    elif path.suffix in (".pt", ".pth"):
        found = _torch(path, tensor, tokens)
    else:
        kinds = ".npy, .safetensors, .pt, a folder of Parquet shards or a pool's manifest (.json)"
        raise UserError(f"{path}: suffix {path.suffix!r}, expected {kinds}")
    return _checked(found, path, tokens, m, fewer)


def _checked(found: np.ndarray, path: Path, tokens: int | None, m: int | None, fewer: bool) -> np.ndarray:
    if found.ndim < 2 or found.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: shape {list(found.shape)} of {found.dtype}, expected numbers of shape [N, m]"
        )
    if not found.size:
        raise UserError(
            f"{path}: shape {list(found.shape)}, expected at least one row of at least one number"
        )
    found = found.reshape(-1, found.shape[-1])
    if m is not None and found.shape[1] != m:
        raise UserError(f"{path}: activations of width {found.shape[1]}, expected m = {m}")
    if tokens is not None:
        if len(found) < tokens and not fewer:
            raise UserError(f"{path}: {len(found)} rows, expected at least --tokens {tokens}")
        found = found[:tokens]
    if found.dtype != np.float32:
        found = found.astype(np.float32)
    for start in range(0, len(found), _PIECE):
        wrong = ~np.isfinite(found[start : start + _PIECE]).all(axis=1)
        if wrong.any():
            row = start + int(wrong.argmax())
            raise UserError(f"{path}: row {row} has a value that is not finite, expected finite activations")
    return found


def _npy(path: Path) -> np.ndarray:
    with readable(path, "a readable .npy of numbers", ValueError, EOFError):
        # Copy on write: torch warns of arrays that it could not write to.
        return np.load(path, mmap_mode="c", allow_pickle=False)


def _leading(shape: Sequence[int], tokens: int | None) -> slice:
    """The part along the first axis of [N, m] or [B, T, m] that has the first `tokens` rows."""
    if tokens is None:
        return slice(None)
    return slice(-(-tokens // max(math.prod(shape[1:-1]), 1)))


def _safetensors(path: Path, name: str | None, tokens: int | None) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    whole = readable(path, "a whole safetensors file", SafetensorError)
    with whole, safe_open(str(path), framework="pt") as stored:
        keys = list(stored.keys())  # the handle is no mapping: it cannot be iterated over
        names = [key for key in keys if len(stored.get_slice(key).get_shape()) >= 2]
        chosen = stored.get_slice(_choose(path, name, names))
        return _as_array(chosen[_leading(chosen.get_shape(), tokens)])


def _torch(path: Path, name: str | None, tokens: int | None) -> np.ndarray:
    try:
        with readable(path, "a readable .pt file", RuntimeError, EOFError, ValueError):
            try:
                stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files of torch before 1.6 cannot be mapped
                stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors, and loading that could run code; expected a tensor or a "
            "dict of tensors (torch.save(tensor, …)), .npy or .safetensors"
        ) from None
    chosen = ""
    if isinstance(stored, dict):
        found = dict(_tensors_of(stored))
        chosen = _choose(path, name, [key for key, tensor in found.items() if tensor.dim() >= 2])
        stored = found[chosen]
    if not isinstance(stored, torch.Tensor):
        raise UserError(f"{path}: holds a {type(stored).__name__}, expected a tensor or a dict of tensors")
    tensor = as_tensor(stored.detach(), f"{path}: {chosen}" if chosen else str(path))
    return _as_array(tensor[_leading(tensor.shape, tokens)] if tensor.dim() else tensor)


def _tensors_of(stored: dict[Any, Any], above: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of a dict, whatever its keys are; those of a dict inside of it are named above.inner."""
    for key, value in stored.items():
        if isinstance(value, torch.Tensor):
            yield f"{above}{key}", value
        elif isinstance(value, dict):
            yield from _tensors_of(value, f"{above}{key}.")


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


def _parquet(path: Path, column: str, split: str, tokens: int | None) -> np.ndarray:
    """All rows of the files in order, or the first `tokens`, in one array: memory 4·N·m bytes."""
    files = [path] if path.is_file() else _shards(path, split)
    rows, needed = 0, []
    while files and (tokens is None or rows < tokens):
        needed.append(files.pop(0))
        rows += _parquet_rows(needed[-1], column)
    rows = rows if tokens is None else min(rows, tokens)
    whole, filled = np.empty((0, 1), np.float32), 0
    for file in needed:
        for part in _parquet_parts(file, column, whole.shape[1] if filled else None):
            if not filled:
                whole = np.empty((rows, part.shape[1]), np.float32)
            taken = part[: rows - filled]
            whole[filled : filled + len(taken)] = taken
            filled += len(taken)
            if filled == rows:
                break
    return whole[:filled]


def _shards(folder: Path, split: str) -> list[Path]:
    """The Parquet files of a folder, sorted; of those that are named SPLIT-00000.parquet the split's."""
    alike = sorted(file for file in folder.glob("[!.]*") if ".parquet" in file.name.lower())
    for file in alike:
        if file.suffix != ".parquet":
            raise UserError(f"{file}: found suffix {file.suffix!r}, expected .parquet as of the others")
    if not alike:
        raise UserError(f"{folder}: found no .parquet file, expected a folder of activation shards")
    numbered = {file: re.fullmatch(r"(.+)-\d+", file.stem) for file in alike}
    if not any(numbered.values()):
        return alike
    for file, match in numbered.items():
        if match is None:
            raise UserError(
                f"{file}: found another name than SPLIT-00000.parquet, which others beside it have"
            )
    splits = {file: match.group(1) for file, match in numbered.items() if match}
    files = [file for file, found in splits.items() if found == split]
    if not files:
        raise UserError(
            f"{folder}: no shard of --split {split}, found {', '.join(sorted(set(splits.values())))}"
        )
    return files


def _parquet_rows(file: Path, column: str) -> int:
    """Rows of a file whose seal, where it has one, holds, and which has the column."""
    import pyarrow as pa

    from expander_sae.storage.parquet_files import open_sealed, require_column

    with readable(file, "a readable Parquet file", pa.ArrowException), open_sealed(file) as stored:
        found, rows = stored.schema_arrow.names, stored.metadata.num_rows
    if column not in found:
        raise UserError(f"{file}: no column {column!r}, found {', '.join(found)}; say --column")
    require_column(found, column, f"{file}")
    return int(rows)


def _parquet_parts(file: Path, column: str, m: int | None) -> Iterator[np.ndarray]:
    """The column's rows, 1024 at a time, each of `m` numbers (None: as many as the first)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from expander_sae.activations.shards import activations_of, metadata_of

    whole, first = readable(file, "a readable Parquet file", pa.ArrowException), 0
    # Mapped, or a row group's whole column would be read before its first row is decoded.
    with whole, pq.ParquetFile(file, memory_map=True) as stored:
        about = metadata_of(stored)
        for batch in stored.iter_batches(1024, columns=[column]):
            part = activations_of(batch.column(0), f"{file}: column {column!r}", about, m, first)
            m, first = part.shape[1], first + len(part)
            yield part
