"""The pool: one split's activations as a raw file that training maps into memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from expander_sae.activations.shards import Shard
from expander_sae.errors import UserError
from expander_sae.files import atomic_path, digest, read_json, sha256_file, write_json
from expander_sae.stages import lineage

_CHUNK = 8192
_AGAIN = "remove it to have it made again"


def build_pool(
    shards: Sequence[Path], split: str, out_f32: Path, out_json: Path, spec: dict[str, Any] | None = None
) -> None:
    """Join shards 0, 1, 2, … of a split into raw float32 [N,m] and write the manifest.

    Memory does not grow with the corpus: shards are read a row group at a time. Document,
    position, token id and norm of every token go into a safetensors file beside the manifest,
    named by it. `spec` is recorded. Raises `UserError` naming a missing, truncated, altered or
    misplaced shard, or when there is no token at all.
    """
    out_f32, out_json = Path(out_f32), Path(out_json)
    columns: dict[str, list[np.ndarray]] = {"document": [], "position": [], "token_id": [], "norm": []}
    checksum = hashlib.sha256()
    parts: list[dict[str, Any]] = []
    m = 0
    with atomic_path(out_f32) as temporary:
        with open(temporary, "wb") as raw:
            for number, path in enumerate(shards):
                shard = Shard(path)
                _check_shard(shard, split, number, m or shard.m, parts)
                m = shard.m
                for rows in shard.row_groups():
                    data = np.ascontiguousarray(rows.activation, dtype="<f4").data
                    raw.write(data)
                    checksum.update(data)
                    columns["document"].append(rows.document)
                    columns["position"].append(rows.position)
                    columns["token_id"].append(rows.token_id)
                    columns["norm"].append(np.linalg.norm(rows.activation.astype(np.float64), axis=1))
                parts.append(shard.about)
        tokens = sum(part["tokens"] for part in parts)
        if not tokens:
            raise UserError(f"{out_f32}: found no token in the {split} split, expected one or more")
    index = out_json.with_suffix(".tokens.safetensors")
    with atomic_path(index) as temporary:
        save_file({name: np.concatenate(values) for name, values in columns.items()}, temporary)
        temporary.chmod(0o644)  # safetensors writes files that only their owner may read
    write_json(
        out_json,
        {
            "split": split,
            "file": out_f32.name,
            "index": index.name,
            "m": m,
            "tokens": tokens,
            "sha256": checksum.hexdigest(),
            "index_sha256": sha256_file(index),
            "shards": [{"tokens": part["tokens"], "sha256": part["sha256"]} for part in parts],
            "model": parts[0]["model"],
            "layer": parts[0]["layer"],
            "settings": spec or {},
            "lineage": lineage("pool"),
        },
    )


def _check_shard(shard: Shard, split: str, number: int, m: int, earlier: list[dict[str, Any]]) -> None:
    expected: dict[str, Any] = {"split": split, "shard": number, "m": m, "lineage": lineage("extraction")}
    if earlier:
        expected |= {key: earlier[0][key] for key in ("model", "model_sha256", "layer", "shard_tokens")}
        if earlier[-1]["tokens"] < earlier[-1]["shard_tokens"] and shard.tokens:
            raise UserError(f"{shard.path}: found tokens after a shard that was not full; {_AGAIN}")
    for key, value in expected.items():
        if shard.about.get(key) != value:
            raise UserError(
                f"{shard.path}: found {key} {shard.about.get(key)!r}, expected {value!r}; {_AGAIN}"
            )


class Pool:
    """A split's activations, mapped read-only.

    activations float32[N,m] (memmap); document int32[N], position int16[N], token_id int32[N],
    norms float64[N]; m, tokens, sha256 of the raw file.
    """

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
        """Open a pool by its manifest.

        Size and lineage are always checked; `verify` also checks both sha256 (about a second for
        1.5 GB). Raises `UserError` naming the file.
        """
        manifest = Path(manifest)
        record = read_json(manifest)
        if not isinstance(record, dict) or record.get("lineage") != lineage("pool"):
            found = record.get("lineage") if isinstance(record, dict) else record
            raise UserError(f"{manifest}: found lineage {found!r}, expected {lineage('pool')!r}; {_AGAIN}")
        raw, index = manifest.parent / record["file"], manifest.parent / record["index"]
        expected = record["tokens"] * record["m"] * 4
        found_bytes = raw.stat().st_size if raw.is_file() else 0
        if found_bytes != expected:
            raise UserError(f"{raw}: found {found_bytes} bytes, expected {expected}; {_AGAIN}")
        try:
            arrays = load_file(index)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{index}: unreadable ({error}); {_AGAIN}") from None
        pool = cls(manifest, record, arrays)
        if verify:
            pool.verify()
        return pool

    def verify(self) -> None:
        """Raise `UserError` if a byte of the raw file or of the token columns has changed."""
        for path, expected in (
            (self.file, self.sha256),
            (self.path.parent / self.record["index"], self.record["index_sha256"]),
        ):
            found = sha256_file(path)
            if found != expected:
                raise UserError(f"{path}: found sha256 {found}, expected {expected}; {_AGAIN}")

    def check_tokens(self, tokens: int) -> None:
        """Raise `UserError` if the pool has fewer than `tokens` tokens."""
        if not 0 < tokens <= self.tokens:
            raise UserError(f"{self.path}: found {self.tokens} tokens, expected {tokens}")

    def prefix_digest(self, tokens: int) -> str:
        """Hash of the shards that hold the first `tokens` tokens, and of `tokens`.

        It does not change when more shards are added, so that a run on the first tokens stays
        valid when the pool grows.
        """
        self.check_tokens(tokens)
        covered, hashes = 0, []
        for shard in self.record["shards"]:
            if covered >= tokens:
                break
            hashes.append(shard["sha256"])
            covered += shard["tokens"]
        return digest({"tokens": tokens, "shards": hashes})


class Activations(Protocol):
    """What `normalisation` asks of a pool: activations [N, m] by slices, and their norms [N]."""

    @property
    def path(self) -> str | Path: ...
    @property
    def m(self) -> int: ...
    @property
    def activations(self) -> Any: ...
    @property
    def norms(self) -> np.ndarray: ...
    def check_tokens(self, tokens: int) -> None: ...


@dataclass(frozen=True)
class Normalisation:
    """What a recipe does to the activations before the autoencoder sees them.

    limit: tokens of a larger norm are passed through, not encoded (inf keeps every token);
    scale: factor from model units to the autoencoder's; mean float32[m]: mean kept activation in
    model units; kept int64[K]: rows of the kept tokens.
    """

    limit: float
    scale: float
    mean: np.ndarray
    kept: np.ndarray


def normalisation(pool: Activations, tokens: int, recipe_settings: dict[str, Any]) -> Normalisation:
    """Norm limit, scale and mean from the first `tokens` tokens of a training pool.

    limit = norm_limit · median norm; scale brings the mean kept norm to √m, where the recipe asks
    for it. Sums are in float64, a piece of the pool at a time.
    """
    pool.check_tokens(tokens)
    norms = pool.norms[:tokens]
    norm_limit = recipe_settings["norm_limit"]
    limit = math.inf if norm_limit is None else float(norm_limit) * float(np.median(norms))
    kept = np.flatnonzero(norms <= limit).astype(np.int64)
    if not len(kept):
        raise UserError(f"recipe.norm_limit: found {norm_limit}, which leaves no token; expected more than 1")
    total = np.zeros(pool.m, np.float64)
    for start in range(0, tokens, _CHUNK):
        rows = slice(start, min(start + _CHUNK, tokens))
        total += pool.activations[rows][norms[rows] <= limit].sum(axis=0, dtype=np.float64)
    scale = 1.0
    if recipe_settings["scale_to_sqrt_m"]:
        mean_norm = float(norms[kept].mean())
        if mean_norm == 0.0:
            raise UserError(f"{pool.path}: every activation is zero, expected a trained model's")
        scale = math.sqrt(pool.m) / mean_norm
    return Normalisation(limit, scale, (total / len(kept)).astype(np.float32), kept)
