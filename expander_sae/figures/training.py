"""Training over steps and over tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import DENSE, by_metric, by_place, curves, lines_sheet, with_published
from expander_sae.figures.plots import Line, key
from expander_sae.figures.style import Look, step_look
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View

_CURVES = {
    "relative_error": "relative error on training batches ↓",
    "silent_share": "features silent since the last log",
}


def learning_curves(results: Results) -> list[Sheet]:
    """Relative error and silent features over training steps: mean over seeds, and their range."""
    return by_place(lambda view: _learning_curves(results.curves_of(view), view))(results)


def _learning_curves(rows: pd.DataFrame, view: View) -> Sheet:
    title = "Learning curves"
    if rows.empty:
        return Sheet(title, str(view), missing=["learning curves (results/curves.parquet)"])
    ds = sorted({int(d) for d in rows.loc[rows["support"] == "expander", "d"]})
    series = [("expander", d, step_look(place), f"expander, d = {d}") for place, d in enumerate(ds)]
    series.append(("dense", view.place.m, DENSE, "dense, all n features"))
    chosen = {
        label: (style, rows[(rows["support"] == support) & (rows["d"] == d)])
        for support, d, style, label in series
    }
    chosen = {label: pair for label, pair in chosen.items() if len(pair[1])}
    panels = [
        Panel("", _curves(chosen, column), "training step", label, height=2.1)
        for column, label in _CURVES.items()
    ]
    legend = [key(Line(label, replace(style, marker="None"), {})) for label, (style, _) in chosen.items()]
    counts = sorted({part["seed"].nunique() for _, part in chosen.values()})
    return Sheet(title, str(view), panels, legend,
                 [f"Seeds per line: {'–'.join(map(str, counts[:1] + counts[1:][-1:]))}; "
                  "lines are means over seeds, the shade is their range."])  # fmt: skip


def _curves(chosen: dict[str, tuple[Look, pd.DataFrame]], column: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for style, part in chosen.values():
            over = part.groupby("step")[column]
            mean, low, high = over.mean(), over.min(), over.max()
            axes.fill_between(mean.index, low, high, color=style.colour, alpha=0.18, lw=0)
            axes.plot(mean.index, mean, style.line, color=style.colour, lw=1.1)
        axes.set_xlim(left=0)

    return draw


@by_place
def data_efficiency(view: View) -> Sheet:
    """Fidelity over the number of training tokens."""
    title = "Data efficiency: fidelity over training tokens"

    def counts(**where: int) -> list[int]:
        return view.values("train_tokens", train_tokens=None, support="expander", encoder="tied", **where)

    several = [d for d in view.ds(train_tokens=None) if len(counts(d=d)) > 1]
    if not several:
        return Sheet(title, str(view), missing=["runs on fewer training tokens than the main ones"])

    def lines_of(metric: str) -> list[Line]:
        lines = []
        for place, d in enumerate(several):
            found = curves(view, metric, "expander", counts(), "train_tokens", d=d)
            lines += with_published(f"expander, d = {d}", step_look(place), *found)
        dense, _ = curves(view, metric, "dense", counts(), "train_tokens")
        if sum(map(bool, dense.values())) > 1:
            lines.append(Line("dense, all n features", DENSE, dense))
        return lines

    panels, lines = by_metric(lines_of, "training tokens (log)")
    note = f"All are trained for the same {view.steps:,} steps: fewer tokens are seen more often."
    budget = f"{view.train_tokens:,} tokens of {view.place.corpus}"
    return lines_sheet(title, str(view).replace(budget, view.place.corpus), panels, lines, notes=[note])
