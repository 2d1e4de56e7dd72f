"""The figure of speed, from the rows that the project has recorded."""

from pathlib import Path

import matplotlib.pyplot as plt

from expander_sae.figures.cost import speed
from expander_sae.measurements.results import Results, read_results
from expander_sae.measurements.tables import write_metrics
from tests.figures import study


def test_recorded_rows_are_drawn(tmp_path: Path) -> None:
    """Those of several autoencoders at once, of one width or of many, are told from those of one."""
    write_metrics(study.study(later=False).to_dict("records"), tmp_path / "metrics.parquet")
    files = sorted((Path(__file__).parents[2] / "benchmarks/results").glob("*.json"))
    rows = read_results(tmp_path / "metrics.parquet", benchmarks=files).benchmarks
    assert {"triton", "triton × 4", "triton × 16"} <= set(rows["variant"])
    many = rows[(rows["task"] == "session") & (rows["variant"] == "triton × 16")]
    assert set(map(str, many["d"])) == {"7", "7, 30, 102"}
    sheets = speed(Results(study.study(), benchmarks=rows))
    assert len(sheets) == rows["file"].nunique()
    for panel in (panel for sheet in sheets for panel in sheet.panels):
        figure, axes = plt.subplots()
        panel.draw(axes)
        assert axes.lines
        plt.close(figure)
