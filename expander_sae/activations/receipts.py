"""Receipts: small local files that stand for shards in object storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN
from expander_sae.storage.remote import Place, is_remote
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

_KEYS = {"address": str, "about": dict}


def is_receipt(place: Place) -> bool:
    """Whether a place is that of a receipt, by its name."""
    return not is_remote(place) and Path(place).suffix == ".json"


def write_receipt(path: Path, address: str, about: dict[str, Any]) -> None:
    """Say where a shard was sent; `about` is its metadata, with the sha256 of its rows."""
    write_sealed_json(path, {"address": address, "about": about})


def read_receipt(path: Place) -> tuple[str, dict[str, Any]]:
    """(address, metadata) of the shard that it stands for."""
    record = read_sealed_json(Path(path), _KEYS, "receipt of a shard")
    for key, kind in _KEYS.items():
        if not isinstance(record[key], kind):
            raise UserError(f"{path}: {key}: found {record[key]!r}, expected {kind.__name__}; {AGAIN}")
    if not is_remote(record["address"]):
        raise UserError(f"{path}: address: found {record['address']!r}, expected one in object storage")
    return record["address"], record["about"]
