"""The pool: one split's activations as a raw file that training maps into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from expander_sae.activations.shards import Shard, stored_in
from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.files import AGAIN, atomic_path, digest, sha256_file
from expander_sae.storage.remote import Place
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

_TEXTS = ("split", "file", "index", "sha256", "index_sha256", "model", "lineage")
_MANIFEST: dict[str, type] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(("m", "tokens", "layer"), int),
    **{"shards": list, "settings": dict},
}


def build_pool(
    shards: Sequence[Place], split: str, out_f32: Path, out_json: Path, spec: dict[str, Any] | None = None
) -> None:
    """Join shards 0, 1, 2, … of a split into raw float32 [N, m] and write the manifest.

    Memory does not grow with the corpus: shards are read a row group at a time. Document, position, token id
    and norm of every token go into a safetensors file beside the manifest, named by it. `spec` is recorded.
    """
    out_f32, out_json = Path(out_f32), Path(out_json)
    with atomic_path(out_f32) as temporary:
        checksum, columns, parts = _join(shards, split, temporary)
        tokens = sum(part["tokens"] for part in parts)
        if not tokens:
            raise UserError(f"{out_f32}: found no token in the {split} split, expected one or more")
    index = out_json.with_suffix(".tokens.safetensors")
    try:
        with atomic_path(index) as temporary:
            save_file({name: np.concatenate(values) for name, values in columns.items()}, temporary)
            temporary.chmod(0o644)  # safetensors writes files that only their owner may read
    except SafetensorError as error:
        raise UserError(f"{index}: cannot be written ({error})") from None
    record = {key: parts[0][key] for key in ("m", "model", "layer")} | {
        "split": split,
        "file": out_f32.name,
        "index": index.name,
        "tokens": tokens,
        "sha256": checksum,
        "index_sha256": sha256_file(index),
        "shards": [{"tokens": part["tokens"], "sha256": part["sha256"]} for part in parts],
        "settings": spec or {},
        "lineage": lineage("pool"),
    }
    write_sealed_json(out_json, record)


def _join(
    shards: Sequence[Place], split: str, out: Path
) -> tuple[str, dict[str, list[np.ndarray]], list[dict[str, Any]]]:
    """Write the raw file: (its sha256, parts of each column of its tokens, `about` of each shard)."""
    columns: dict[str, list[np.ndarray]] = {"document": [], "position": [], "token_id": [], "norm": []}
    checksum = hashlib.sha256()
    parts: list[dict[str, Any]] = []
    with open(out, "wb") as raw:
        for number, path in enumerate(shards):
            shard = Shard(path)
            check_shard(path, shard.about, split, number, parts)
            for rows in shard.row_groups():
                data = np.ascontiguousarray(rows.activation, dtype="<f4").data
                raw.write(data)
                checksum.update(data)
                norm = np.linalg.norm(rows.activation.astype(np.float64), axis=1)
                for column, values in zip(columns.values(), (*rows.of_tokens, norm), strict=True):
                    column.append(values)
            parts.append(shard.about)
    return checksum.hexdigest(), columns, parts


def check_shard(
    path: Place, about: dict[str, Any], split: str, number: int, earlier: list[dict[str, Any]]
) -> None:
    """Raise `UserError` where a shard is by its metadata not the one that follows earlier ones of a split."""
    expected: dict[str, Any] = {"split": split, "shard": number, "lineage": lineage("extraction")}
    if earlier:
        shared = ("m", "model", "model_sha256", "layer", "shard_tokens")
        expected |= {key: earlier[0][key] for key in shared}
        if earlier[-1]["tokens"] < earlier[-1]["shard_tokens"] and about["tokens"]:
            raise UserError(f"{path}: found tokens after a shard that was not full; {AGAIN}")
    about = {**about, "stored": stored_in(about)}
    expected |= {"stored": stored_in(earlier[0])} if earlier else {}
    for key, value in expected.items():
        found = about.get(key)
        if found != value:
            raise UserError(f"{path}: found {key} {found!r}, expected {value!r}; {AGAIN}")


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The record of a pool, its seal and lineage checked."""
    record = read_sealed_json(path, _MANIFEST, "pool manifest")
    if record["lineage"] != lineage("pool"):
        found = record["lineage"]
        raise UserError(f"{path}: found lineage {found!r}, expected {lineage('pool')!r}; {AGAIN}")
    for key, kind in _MANIFEST.items():
        if type(record[key]) is not kind:
            raise UserError(f"{path}: {key}: found {record[key]!r}, expected {kind.__name__}; {AGAIN}")
    for key in ("file", "index"):
        if Path(record[key]).name != record[key]:
            raise UserError(f"{path}: {key}: found {record[key]!r}, expected a file beside it; {AGAIN}")
    if record["tokens"] < 1 or record["m"] < 1:
        raise UserError(f"{path}: found {record['tokens']} tokens of {record['m']} values; {AGAIN}")
    for number, shard in enumerate(record["shards"]):
        kinds = [type(shard.get(key)) for key in ("tokens", "sha256")] if isinstance(shard, dict) else []
        if kinds != [int, str]:
            raise UserError(f"{path}: shards[{number}]: found {shard!r}; {AGAIN}")
    return record


def _verify(path: Path, expected: str) -> None:
    found = sha256_file(path)
    if found != expected:
        raise UserError(f"{path}: found sha256 {found}, expected {expected}; {AGAIN}")


class Pool:
    """A split's activations float32[N,m], mapped read-only, and of each token document int32[N], position
    int16[N], token_id int32[N] and norms float64[N]; `sha256` is that of the raw file."""

    def __init__(self, manifest: Path, record: dict[str, Any], index: dict[str, np.ndarray]) -> None:
        self.path = manifest
        self.record = record
        self.m: int = record["m"]
        self.tokens: int = record["tokens"]
        self.sha256: str = record["sha256"]
        self.file = manifest.parent / record["file"]
        self.activations = np.memmap(self.file, dtype="<f4", mode="r", shape=(self.tokens, self.m))
        self.document = index["document"]
        self.position = index["position"]
        self.token_id = index["token_id"]
        self.norms = index["norm"]

    @classmethod
    def open(cls, manifest: str | Path, verify: bool = True) -> Pool:
        """Open a pool by its manifest, whose seal, lineage and sizes are always checked.

        `verify` also checks the sha256 of the raw file and of the token columns, every byte (a second for
        1.5 GB; a job opens a pool once and reads all of it).
        """
        manifest = Path(manifest)
        record = read_manifest(manifest)
        raw, index = manifest.parent / record["file"], manifest.parent / record["index"]
        expected = record["tokens"] * record["m"] * 4
        found_bytes = raw.stat().st_size if raw.is_file() else 0
        if found_bytes != expected:
            raise UserError(f"{raw}: found {found_bytes} bytes, expected {expected}; {AGAIN}")
        if not index.is_file():
            raise UserError(f"{index}: no such file; remove {manifest} to have it made again")
        if verify:
            _verify(raw, record["sha256"])
            _verify(index, record["index_sha256"])
        try:
            arrays = load_file(index)
            pool = cls(manifest, record, arrays)
            lengths = {len(column) for column in arrays.values()}
            if lengths != {pool.tokens}:
                raise ValueError(f"found {sorted(lengths)} tokens, expected {pool.tokens}")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{index}: unreadable ({error}); {AGAIN}") from None
        return pool

    def verify(self) -> None:
        """Raise `UserError` if a byte of the raw file or of the token columns has changed."""
        _verify(self.file, self.sha256)
        _verify(self.path.parent / self.record["index"], self.record["index_sha256"])

    def prefix_digest(self, tokens: int) -> str:
        """Hash of the shards that hold the first `tokens` tokens, and of `tokens`.

        It does not change when more shards are added, so that a run on the first tokens stays
        valid when the pool grows.
        """
        if not 0 < tokens <= self.tokens:
            raise UserError(f"{self.path}: found {self.tokens} tokens, expected {tokens}")
        shards = self.record["shards"]
        before = accumulate((shard["tokens"] for shard in shards), initial=0)
        hashes = [shard["sha256"] for shard, first in zip(shards, before, strict=False) if first < tokens]
        return digest({"tokens": tokens, "shards": hashes})
