"""Rebuild every figure, table, verdict and the report from tables: python -m expander_sae.report FOLDER.

FOLDER is a results folder or a study with rows/. Nothing is computed from weights, and torch is not used.
A study gets its verdicts and main tables beside its rows, to be committed with them.
"""

from __future__ import annotations

import argparse
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from expander_sae.errors import reported_to_user
from expander_sae.storage.workflow_files import BENCHMARKS, CLAIMS, RESOURCES

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
    from expander_sae.figures.write import draw_all
    from expander_sae.measurements.results import read_results
    from expander_sae.report.gather import gather
    from expander_sae.report.page import template_engine, write_report
    from expander_sae.report.tables import write_tables
    from expander_sae.storage.files import read_json

    published, synthetic = RESOURCES / "paper_figures.csv", RESOURCES / "paper_synthetic_omp.csv"
    template_engine()  # before minutes of drawing, not after
    found = gather(folder, out)
    write_claims(found.metrics, found.documents, CLAIMS, out / "claims.json", found.speed)
    # Beside the others, since a study's frontier takes a third of all the time.
    with ProcessPoolExecutor(max_workers=1) as beside:
        pages = out / "frontier.pdf", out / "frontier.png"
        frontier = beside.submit(_draw_frontier, found.metrics, published, *pages)
        results = read_results(
            found.metrics,
            published,
            synthetic,
            found.curves,
            out / "claims.json",
            BENCHMARKS.glob("*.json"),
            found.documents,
        )
        draw_all(results, out / "figures")
        write_tables(results, out / "tables")
        frontier.result()
    provenance = read_json(found.provenance) if found.provenance.exists() else {}
    write_report(results, out / "figures", out / "frontier.png", provenance, out / "report.html")
    if (folder / "rows").is_dir():
        (folder / "tables").mkdir(exist_ok=True)
        for made, kept in KEPT.items():
            shutil.copyfile(out / made, folder / kept)


def _draw_frontier(metrics: Path, published: Path, out_pdf: Path, out_png: Path) -> None:
    from expander_sae.figures.write import draw_frontier
    from expander_sae.measurements.results import read_results

    draw_frontier(read_results(metrics, published), out_pdf, out_png)


if __name__ == "__main__":
    main()
