"""Jobs that serve several runs: which of them are still to be measured as asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

Settings = dict[str, Any]
"""What is asked of a run."""


def fingerprint(folder: Path) -> str:
    """What identifies the training of a run."""
    return read_sealed_json(folder / "run.json", ("fingerprint",), "run record")["fingerprint"]


def is_done(record: Path, tables: Mapping[Path, Callable[[Path], Any]], identity: str) -> bool:
    """Whether all tables are there, readable, and were measured under this identity."""
    try:
        for path, read in tables.items():
            read(path)
        return read_sealed_json(record, (), "record of measurements").get("identity") == identity
    except UserError:
        return False


def measure(
    stage: str,
    spec: Mapping[str, Settings],
    inputs: Callable[[Settings], dict[str, Any]],
    record: str,
    tables: Mapping[str, Callable[[Path], Any]],
    work: Callable[[Path, Settings], dict[str, Any]],
) -> bool:
    """Do the `work` for those runs that are not done; returns whether there were any.

    The record is removed first and written last, so that tables never stand beside another's identity, and
    a job that is killed does the run again.

    Args:
        stage: Of the measurements, whose version and those before it are part of a run's identity.
        spec: Run folder → what is asked of it, also part of its identity, as are its weights.
        inputs: What else a run's measurements depend on.
        record: Name of the file in a run's folder that holds the identity and what `work` returns.
        tables: Names of the files that `work` makes in a run's folder → how each is read.
        work: Measures one run.
    """
    worked = False
    for folder, settings in ((Path(name), settings) for name, settings in spec.items()):
        asked = {"run": fingerprint(folder), "settings": settings, "lineage": lineage(stage)}
        identity = digest(asked | inputs(settings))
        if is_done(folder / record, {folder / name: read for name, read in tables.items()}, identity):
            continue
        worked = True
        (folder / record).unlink(missing_ok=True)
        write_sealed_json(folder / record, {**work(folder, settings), "identity": identity})
    return worked
