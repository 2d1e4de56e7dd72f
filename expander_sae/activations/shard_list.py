"""The list of a split's shards: what training that reads shards depends on, in the place of a pool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expander_sae.activations.pool import check_shard
from expander_sae.activations.shards import about_of
from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.files import AGAIN
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

_KEYS = {"folder": str, "split": str, "shards": list, "lineage": str}


def list_shards(shards: Sequence[Path], split: str, out_json: Path, spec: dict[str, Any]) -> None:
    """Write where shards 0, 1, 2, … of a split lie, and of each its tokens and the sha256 of its rows.

    Their metadata alone are read and nothing is copied: who reads rows checks the shard first.
    """
    parts: list[dict[str, Any]] = []
    for number, path in enumerate(shards):
        about = about_of(path)
        check_shard(path, about, split, number, parts)
        parts.append(about)
    tokens = sum(part["tokens"] for part in parts)
    if not tokens:
        raise UserError(f"{out_json}: found no token in the {split} split, expected one or more")
    record = {key: parts[0][key] for key in ("m", "model", "layer")} | {
        "split": split,
        "folder": Path(os.path.relpath(Path(shards[0]).parent, Path(out_json).parent)).as_posix(),
        "tokens": tokens,
        "shards": [{"tokens": part["tokens"], "sha256": part["sha256"]} for part in parts],
        "settings": spec,
        "lineage": lineage("pool"),
    }
    write_sealed_json(out_json, record)


def read_shard_list(path: Path) -> tuple[Path, str, list[str]]:
    """(folder of the shards, their split, the sha256 of the rows of each)."""
    record = read_sealed_json(path, _KEYS, "list of shards")
    for key, kind in _KEYS.items():
        if type(record[key]) is not kind:
            raise UserError(f"{path}: {key}: found {record[key]!r}, expected {kind.__name__}; {AGAIN}")
    if record["lineage"] != lineage("pool"):
        found = record["lineage"]
        raise UserError(f"{path}: found lineage {found!r}, expected {lineage('pool')!r}; {AGAIN}")
    hashes = [str(shard.get("sha256")) if isinstance(shard, dict) else "" for shard in record["shards"]]
    return Path(path).parent / record["folder"], record["split"], hashes
