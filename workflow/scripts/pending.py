"""Jobs that serve several runs: which of them are still to be measured as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

Reader = Callable[[Path], Any]


def identity_of(stage: str, folder: Path, settings: dict[str, Any], **inputs: Any) -> str:
    """What a run's measurements depend on: its weights, what is asked, further inputs, the stages."""
    return digest(
        {
            "run": read_sealed_json(folder / "run.json", ("fingerprint",), "run record")["fingerprint"],
            "settings": settings,
            "lineage": lineage(stage),
            **inputs,
        }
    )


def is_done(record: Path, tables: Mapping[Path, Reader], identity: str) -> bool:
    """Whether all tables are there, readable, and were measured under this identity."""
    try:
        for path, read in tables.items():
            read(path)
        return read_sealed_json(record, (), "record of measurements").get("identity") == identity
    except UserError:
        return False


def measure(
    runs: Iterable[tuple[Path, str]],
    record: str,
    tables: Mapping[str, Reader],
    work: Callable[[Path], dict[str, Any] | None],
) -> bool:
    """Call `work` for the runs (folder, identity) that are not done; returns whether there were any.

    record: name of the file in a run's folder that carries the identity beside what `work` returns.
    It is removed first and written last, so that tables never stand beside another's identity, and a
    job that is killed does the run again.
    """
    worked = False
    for folder, identity in runs:
        if is_done(folder / record, {folder / name: read for name, read in tables.items()}, identity):
            continue
        worked = True
        (folder / record).unlink(missing_ok=True)
        write_sealed_json(folder / record, {**(work(folder) or {}), "identity": identity})
    return worked
