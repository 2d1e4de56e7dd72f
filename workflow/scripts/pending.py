"""Jobs that serve several runs: which of them are still to be measured as asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import job

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

    `spec` has what is asked of each run by its folder. The run's identity is a digest of that, its weights,
    its `inputs`, and the versions of `stage` and those before it. In the folder `work` makes the `tables`,
    each with its reader. The `record` there, of the identity and what `work` returns, is removed first and
    written last, so that tables never stand beside another's identity, and a killed job does the run again.
    """
    worked = False
    for folder, settings in ((job.place(name), settings) for name, settings in spec.items()):
        asked = {"run": fingerprint(folder), "settings": settings, "lineage": lineage(stage)}
        identity = digest(asked | inputs(settings))
        if is_done(folder / record, {folder / name: read for name, read in tables.items()}, identity):
            continue
        worked = True
        (folder / record).unlink(missing_ok=True)
        write_sealed_json(folder / record, {**work(folder, settings), "identity": identity})
    return worked
