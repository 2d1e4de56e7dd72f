"""Where a report's tables lie: a results folder, or the rows that a study has committed.

A study's folder holds rows/{run}.{metrics,documents,curve}.parquet, one set for each finished run
and one for each baseline; together they are the tables of a results folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from expander_sae.errors import UserError
from expander_sae.evaluation.synthetic_tables import trials_of, write_agreement
from expander_sae.measurements import tables
from expander_sae.storage.workflow_files import RESOURCES
from expander_sae.study.kept_tables import RUN_TABLES, comes_from

PUBLISHED = RESOURCES / "paper_synthetic_omp.csv"


@dataclass(frozen=True)
class Inputs:
    """Paths of the tables; `curves`, `speed` and `provenance` need not exist."""

    metrics: Path
    documents: Path
    curves: Path
    speed: Path
    provenance: Path

    @classmethod
    def of(cls, folder: Path) -> Inputs:
        """The tables of a results folder."""
        names = ("metrics.parquet", "documents.parquet", "curves.parquet", "speed.parquet", "provenance.json")
        return cls(*(folder / name for name in names))


def gather(folder: str | Path, out: str | Path, published: str | Path = PUBLISHED) -> Inputs:
    """The tables of `folder`; those of a study's rows are put together in `out`.

    Args:
        published: the table of synthetic recovery that synthetic rows are compared with, as the workflow
            does.

    Raises:
        UserError: the folder holds neither metrics.parquet nor rows/; two files hold the same row; a file
            is named for another run than it says it comes from.
    """
    folder, out = Path(folder), Path(out)
    rows = folder / "rows"
    if not rows.is_dir():
        found = Inputs.of(folder)
        for path in (found.metrics, found.documents):
            if not path.exists():
                wanted = f"expected it (or a folder {rows} of finished runs)"
                raise UserError(f"{path}: no such table, {wanted}; {_how(folder)}")
        return found
    parts = {kind: sorted(rows.rglob(f"*.{kind}.parquet")) for kind in RUN_TABLES}
    if not parts["metrics"]:
        wanted = "expected the rows of at least one finished run"
        raise UserError(f"{rows}: found no *.metrics.parquet, {wanted}; {_how(folder)}")
    gathered = Inputs.of(out)
    tables.collect_documents(parts["documents"], gathered.documents)
    agreement = _agreement(
        parts["metrics"], gathered.documents, published, out / "synthetic_agreement.parquet"
    )
    tables.collect_metrics([*parts["metrics"], *agreement], gathered.metrics)
    if parts["curve"]:
        tables.collect_curves(parts["curve"], gathered.curves)
    for file in (file for kind in parts.values() for file in kind):
        _check_name(file)
    beside = Inputs.of(folder)
    return Inputs(gathered.metrics, gathered.documents, gathered.curves, beside.speed, beside.provenance)


def _how(folder: Path) -> str:
    """How tables come to lie in the folder, for messages."""
    config = f"configs/{folder.name}.yaml" if folder.parent.name == "studies" else "config.yaml"
    return f"made by: snakemake --cores all --configfile {config}"


def _agreement(metrics: Sequence[Path], documents: Path, published: str | Path, out: Path) -> list[Path]:
    """The table of how synthetic rows agree with the published ones, written to `out`; none without any."""
    parts = [path for path in metrics if path.name.startswith("synthetic_")]
    trials = trials_of(tables.read_documents(documents)) if parts else None
    if trials is None:
        return []
    write_agreement(parts, Path(published), trials, out)
    return [out]


def _check_name(file: Path) -> None:
    """Rows must be named for what they say they come from; those that say nothing are taken as they are."""
    about = json.loads(tables.recorded_about(file) or "{}")
    folder = about.get("run", about.get("from"))
    name = file.name.rsplit(".", 2)[0]
    if folder is not None and not comes_from(name, folder):
        raise UserError(f"{file}: found rows of {folder}, expected those that its name says")
