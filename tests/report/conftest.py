"""A report of a made-up study, drawn once."""

from pathlib import Path

import pandas as pd
import pytest

from expander_sae.figures.write import draw_all
from expander_sae.measurements.results import Results
from expander_sae.report.page import write_report
from tests.figures import study

HOSTILE = "<script>window.hacked=1</script>&\"'"
PROVENANCE = {
    "config": {"models": [{"name": HOSTILE}]},
    "code": {"commit": "0" * 40, "modified": False},
    "versions": {"python": "3.11.7", "numba": None},
    "hardware": {"cpu": "a processor", "gpus": []},
    "cost": {"training": {"jobs": 3, "seconds": 1234.5, "peak_mb": 600.0}},
    "inputs": {"smollm2": {"model": {"sha256": "ab" * 32}, "corpus": {"documents": 5}}},
    "left_out": ["d=7: too few features"],
}


@pytest.fixture(scope="session")
def results() -> Results:
    root = Path(__file__).resolve().parents[2] / "resources"
    return Results(
        study.study(later=False),
        pd.read_csv(root / "paper_figures.csv"),
        pd.read_csv(root / "paper_synthetic_omp.csv"),
        claims=[study.record(reason=HOSTILE), *study.CLAIMS[1:]],
    )


@pytest.fixture(scope="session")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html; a drawn figure stands in for the frontier."""
    folder = tmp_path_factory.mktemp("report")
    draw_all(results, folder / "figures")
    write_report(
        results, folder / "figures", folder / "figures" / "controls.png", PROVENANCE, folder / "report.html"
    )
    return folder / "report.html"
