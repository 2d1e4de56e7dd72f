"""Names of the rows that a study keeps of its finished runs, and which of them are there.

A name ends in a digest of all that the rows depend on and that is known before anything runs: where
rows of that name lie, their run is done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.study.run import RESULTS, Run

RUN_TABLES = ("metrics", "documents", "curve")
"""Tables kept of a run."""
OTHER_TABLES = ("metrics", "documents")
"""Tables kept of a language model itself, and of synthetic trials."""

_DIGEST = re.compile(r"-[0-9a-f]{12}$")


def row_name(run: Run) -> str:
    """Name of a run's rows."""
    analysis = run.analysis.json if run.analysis.analyses else None
    stages = [lineage("evaluation")] + ([] if analysis is None else [lineage("analysis")])
    asked = digest([run.path, run.spec, run.evaluation.json, analysis, stages])[:12]
    return f"{folder_name(run.path)}-{asked}"


def stem(name: str) -> str:
    """A row's name without its digest: the same for whatever is asked of a run."""
    return _DIGEST.sub("", name)


def comes_from(name: str, folder: str) -> bool:
    """Whether rows of this name are those of a run's folder, or of a folder with a digest of its own."""
    return folder_name(folder) in (name, stem(name))


def superseded(file: str | Path) -> list[Path]:
    """The files beside `file` that hold the same table under the same stem and another digest."""
    file = Path(file)
    name, table, ending = file.name.rsplit(".", 2)
    pattern = re.compile(rf"{re.escape(stem(name))}-[0-9a-f]{{12}}\.{table}\.{ending}")
    if stem(name) == name:
        return []
    beside = sorted(os.listdir(file.parent))
    return [file.parent / other for other in beside if other != file.name and pattern.fullmatch(other)]


def folder_name(path: str) -> str:
    """Name of the rows of a folder of results/, but for the digest where its own name holds none."""
    return path.removeprefix(f"{RESULTS}/").replace("/", "_")


def row_files(folder: str, name: str, tables: Iterable[str]) -> list[str]:
    return [f"{folder}/{name}.{table}.parquet" for table in tables]


def recorded(folder: str | Path) -> frozenset[str]:
    """Names of the files in a folder of rows; empty where there is no such folder."""
    return frozenset(os.listdir(folder)) if Path(folder).is_dir() else frozenset()
