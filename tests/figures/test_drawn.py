"""The data of every drawn line, against what was drawn before: no move of code may move a point.

A change that is meant to move points is recorded by `python -m tests.figures.test_drawn`; look at its diff.
"""

import json
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from expander_sae.figures.catalogue import FIGURES, FRONTIER
from expander_sae.figures.layout import compose
from expander_sae.figures.style import house_style
from expander_sae.measurements.results import Results
from tests.figures import study

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("drawn.json")


def of_the_paper(frame: pd.DataFrame) -> pd.DataFrame:
    """Half of the made-up study, as if it were of a model that has published values."""
    mine = (frame["model"] != "synthetic") & (frame["seed"] < 2) & (frame["d"] != 30)
    mine &= ~frame["support"].isin(["girth6", "min_overlap", "dose144"])
    renamed = frame[mine].assign(model="pythia-70m-deduped", m=512).replace({"layer": {15: 3}})
    renamed = renamed.assign(n=renamed["n"].replace(4608, 4096), d=renamed["d"].replace(576, 512))
    return pd.concat([renamed, frame[frame["model"] == "synthetic"]])


def one_diverged(frame: pd.DataFrame) -> pd.DataFrame:
    """One seed of the expander at d = 7 diverged, whatever it was trained on."""
    run = (frame["support"] == "expander") & (frame["d"] == 7) & (frame["seed"] == 1)
    hit = run & (frame["metric"] == "diverged")
    return frame.assign(value=frame["value"].mask(hit, 1.0))


def lines_of(drawn: Axes) -> list[str]:
    """Marker, colour and points of each line, five digits of each number."""
    return sorted(
        f"{one.get_marker()} {one.get_color()} " + " ".join(f"{x:.5g},{y:.5g}" for x, y in one.get_xydata())
        for one in drawn.lines
    )


def drawn() -> dict[str, list[str]]:
    """The lines of all axes, by figure, page and place on the page."""
    resources = ROOT / "resources"
    results = Results(
        one_diverged(of_the_paper(study.study())),
        pd.read_csv(resources / "paper_figures.csv"),
        pd.read_csv(resources / "paper_synthetic_omp.csv"),
        of_the_paper(study.curves()),
        study.CLAIMS,
        study.benchmarks(),
    )
    found: dict[str, list[str]] = {}

    with house_style():
        for figure in (*FIGURES, FRONTIER):
            for number, page in enumerate(map(compose, figure.sheets(results))):
                for place, axes in enumerate(page.axes):
                    found[f"{figure.name}, page {number}, axes {place}"] = lines_of(axes)
    return found


def test_every_line_of_every_figure_is_where_it_was() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    now = drawn()
    assert now.keys() == recorded.keys()
    for name, lines in recorded.items():
        assert now[name] == lines, name


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(drawn(), indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
