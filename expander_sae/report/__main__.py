"""Rebuild every figure, table, verdict and the report from tables: python -m expander_sae.report FOLDER.

FOLDER is a results folder or a study with rows/. Nothing is computed from weights, and torch is not used.
A study gets its verdicts and main tables beside its rows, to be committed with them.
"""

from __future__ import annotations

import argparse
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from expander_sae.errors import reported_to_user
from expander_sae.storage.workflow_files import BENCHMARKS, CLAIMS, RESOURCES

if TYPE_CHECKING:
    from expander_sae.measurements.results import Results
    from expander_sae.report.gather import Inputs

_TABLES = ("choice", "headline", "controls", "budgets", "encoders", "grid")
KEPT = {
    "claims.json": "claims.json", "tables/claims.md": "verdicts.md", "frontier.png": "frontier.png",
    **{f"tables/{name}.md": f"tables/{name}.md" for name in _TABLES},
}  # fmt: skip
"""What a study keeps of its report: file of the report → file of the study."""


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m expander_sae.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="results, or studies/NAME with rows/ in it")
    parser.add_argument("--out", type=Path, help="where to write; FOLDER itself where it holds tables")
    options = parser.parse_args(arguments)
    with reported_to_user():
        rebuild(options.folder, options.out or default_out(options.folder))


def default_out(folder: Path) -> Path:
    """The folder itself for a results folder, results/NAME for a study."""
    return Path("results") / folder.resolve().name if (folder / "rows").is_dir() else folder


def rebuild(folder: Path, out: Path) -> None:
    """Write frontier, figures/, tables/, claims.json and report.html below `out`, and `KEPT` in a study."""
    from expander_sae.claims.judge import write_claims
    from expander_sae.figures.catalogue import FIGURES, FRONTIER
    from expander_sae.report.gather import gather
    from expander_sae.report.page import template_engine, write_report
    from expander_sae.report.tables import write_tables
    from expander_sae.storage.files import read_json

    template_engine()  # before minutes of drawing, not after
    found = gather(folder, out)
    write_claims(found.metrics, found.documents, CLAIMS, out / "claims.json", found.speed)
    names = [FRONTIER.name, *(figure.name for figure in FIGURES)]
    with ProcessPoolExecutor(max_workers=min(os.cpu_count() or 1, len(names))) as pool:
        drawn = [pool.submit(_draw, name, found, out) for name in names]
        results = _results(found, out)
        write_tables(results, out / "tables")
        for figure in drawn:
            figure.result()
    provenance = read_json(found.provenance) if found.provenance.exists() else {}
    write_report(results, out / "figures", out / "frontier.png", provenance, out / "report.html")
    if (folder / "rows").is_dir():
        (folder / "tables").mkdir(exist_ok=True)
        for made, kept in KEPT.items():
            shutil.copyfile(out / made, folder / kept)


@cache
def _results(found: Inputs, out: Path) -> Results:
    """What is drawn, read once a process."""
    from expander_sae.measurements.results import read_results

    published, synthetic = RESOURCES / "paper_figures.csv", RESOURCES / "paper_synthetic_omp.csv"
    benchmarks, claims = BENCHMARKS.glob("*.json"), out / "claims.json"
    return read_results(
        found.metrics, published, synthetic, found.curves, claims, benchmarks, found.documents
    )


def _draw(name: str, found: Inputs, out: Path) -> None:
    from expander_sae.figures.catalogue import FRONTIER
    from expander_sae.figures.write import draw_all, draw_frontier

    if name == FRONTIER.name:
        draw_frontier(_results(found, out), out / "frontier.pdf", out / "frontier.png")
    else:
        draw_all(_results(found, out), out / "figures", [name])


if __name__ == "__main__":
    main()
