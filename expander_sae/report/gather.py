"""Where a report's tables lie: a results folder, or the rows that a study has committed.

A study's folder holds rows/{run}.{metrics,documents,curve}.parquet, one set for each finished run
and one for each baseline; together they are the tables of a results folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from expander_sae.errors import UserError
from expander_sae.evaluation import tables


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


def gather(folder: str | Path, out: str | Path) -> Inputs:
    """The tables of `folder`; those of a study's rows are put together in `out`.

    Raises `UserError` where the folder holds neither metrics.parquet nor rows/.
    """
    folder, out = Path(folder), Path(out)
    rows = folder / "rows"
    if not rows.is_dir():
        found = Inputs.of(folder)
        for path in (found.metrics, found.documents):
            if not path.exists():
                raise UserError(f"{path}: no such table, expected it (or a folder {rows} of finished runs)")
        return found
    parts = {kind: sorted(rows.rglob(f"*.{kind}.parquet")) for kind in ("metrics", "documents", "curve")}
    if not parts["metrics"]:
        raise UserError(f"{rows}: found no *.metrics.parquet, expected the rows of at least one finished run")
    gathered = Inputs.of(out)
    tables.collect_metrics(parts["metrics"], gathered.metrics)
    tables.collect_documents(parts["documents"], gathered.documents)
    if parts["curve"]:
        tables.collect_curves(parts["curve"], gathered.curves)
    beside = Inputs.of(folder)
    return Inputs(gathered.metrics, gathered.documents, gathered.curves, beside.speed, beside.provenance)
