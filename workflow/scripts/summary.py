"""Jobs that serve a study as a whole: tables of everything, verdicts, figures, the report.

Each function is a job, started by its name: summary.py collect --metrics …
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import job

from expander_sae.storage.files import read_json, write_json
from expander_sae.study.study import Study, load_config

if TYPE_CHECKING:
    from expander_sae.measurements.results import Results


def agreement(parts: list[Path], published: Path, trials: int, out: Path) -> None:
    """Compare the recovery of planted codes with the published table."""
    from expander_sae.evaluation.synthetic_tables import write_agreement

    write_agreement(parts, published, trials, out)


def collect(metrics: list[Path], documents: list[Path], out: list[Path]) -> None:
    """Put the tables of all runs together."""
    from expander_sae.measurements import tables

    tables.collect_metrics(metrics, out[0])
    tables.collect_documents(documents, out[1])


def curves(parts: list[Path], out: Path) -> None:
    """Put the learning curves of all runs together: their training.csv, or tables that a study keeps."""
    from expander_sae.measurements import tables

    if parts[0].suffix == ".csv":
        tables.write_curves({str(part): read_json(part.with_name("run.json"))["spec"] for part in parts}, out)
    else:
        tables.collect_curves(parts, out)


def timings(out: Path) -> None:
    """Put together what every job cost."""
    from expander_sae.measurements import tables

    tables.write_timings([read_json(path) for path in sorted(job.LOGS.rglob("*.json"))], out)


def provenance(config: dict[str, Any], timings: Path, out: Path) -> None:
    """Record what made the results."""
    from expander_sae.machine import provenance
    from expander_sae.measurements import tables

    study = Study(load_config(config))
    root, costs = Path(__file__).resolve().parents[2], tables.read_timings(timings)
    inputs = provenance.inputs(out.parent, study.models, study.corpus)
    write_json(out, provenance.record(study.config, costs, root, inputs, study.left_out))


def claims(metrics: Path, documents: Path, speed: list[Path], claims: Path, out: Path) -> None:
    """Judge the claims of workflow/claims.yaml."""
    from expander_sae.claims.judge import write_claims

    write_claims(metrics, documents, claims, out, speed[0] if speed else None)


def frontier(metrics: Path, published: Path, pdf: Path, png: Path) -> None:
    """Draw the storage-fidelity frontier."""
    from expander_sae.figures.write import draw_frontier
    from expander_sae.measurements.results import read_results

    draw_frontier(read_results(metrics, published), pdf, png)


def figures(inputs: dict[str, Any], out: Path) -> None:
    """Draw every figure of the catalogue, into the folder of `out`."""
    from expander_sae.figures.write import draw_all

    draw_all(_results(inputs), out.parent)


def tables(inputs: dict[str, Any], out: Path) -> None:
    """Write every table as CSV, Markdown and LaTeX, into the folder of `out`."""
    from expander_sae.report.tables import write_tables

    write_tables(_results(inputs), out.parent)


def sweep(parts: list[Path], spec: dict[str, Any], out: Path) -> None:
    """Compare the swept recipes on the validation split: a table and a figure, into the folder of `out`."""
    from expander_sae.figures.sweep import draw_sweep
    from expander_sae.measurements.sweep import read_sweep
    from expander_sae.report.formats import write
    from expander_sae.report.sweep import sweep_table

    found = read_sweep(parts, spec["values"], spec["inference"])
    write(sweep_table(found), out.parent)
    draw_sweep(found, out, out.with_suffix(".png"))


def report(inputs: dict[str, Any], out: Path) -> None:
    """Write the page that holds verdicts, figures, tables, configuration and provenance."""
    from expander_sae.report.page import write_report

    figures, frontier = Path(inputs["figures"][0]).parent, Path(inputs["frontier"])
    write_report(_results(inputs), figures, frontier, read_json(inputs["provenance"]), out)


def speed(config: dict[str, Any], out: Path) -> None:
    """Measure how long one correlation takes, for each tied expander and the dense run of its size."""
    from expander_sae.evaluation.speed import write_speed

    runs = [run.columns for run in Study(load_config(config)).timed]
    write_speed(runs, out, job.device(), job.backend())


def _results(inputs: dict[str, Any]) -> "Results":
    """Load the files that `SHOWN` in workflow/rules/common.smk names."""
    from expander_sae.measurements.results import read_results

    names = ("metrics", "published", "synthetic", "curves", "claims", "benchmarks", "documents")
    return read_results(*(inputs[name] for name in names))


if __name__ == "__main__":
    job.run(globals()[sys.argv.pop(1)])
