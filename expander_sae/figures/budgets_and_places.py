"""Training over steps and over tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from expander_sae.figures.fidelity import CE, DENSE, ERROR, LABELS, by_place, published_key
from expander_sae.figures.layout import Line, Panel, Plot, Sheet, key, keys, seeds_note
from expander_sae.figures.sources import Sources
from expander_sae.figures.style import Look, step_look
from expander_sae.measurements.cells import Cell, View
from expander_sae.measurements.published import Published

_CURVES = {
    "relative_error": "relative error on training batches ↓",
    "silent_share": "features silent since the last log",
}


def learning_curves(sources: Sources) -> list[Sheet]:
    """Relative error and silent features over training steps: mean over seeds, and their range."""
    return by_place(sources, _learning_curves)


def _learning_curves(sources: Sources, view: View) -> Sheet:
    title = "Learning curves"
    rows = _of_view(sources.curves, view)
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
        if column in rows.columns
    ]
    legend = [key(Line(label, _unmarked(style), {})) for label, (style, _) in chosen.items()]
    counts = sorted({part["seed"].nunique() for _, part in chosen.values()})
    return Sheet(title, str(view), panels, legend,
                 [f"Seeds per line: {'–'.join(map(str, counts[:1] + counts[1:][-1:]))}; "
                  "lines are means over seeds, the shade is their range."])  # fmt: skip


def _unmarked(style: Look) -> Look:
    return Look(style.colour, "None", style.line, style.width, style.size)


def _of_view(curves: pd.DataFrame, view: View) -> pd.DataFrame:
    if curves.empty:
        return curves
    place = view.place
    wanted = {
        "model": place.model, "corpus": place.corpus, "layer": place.layer, "recipe": place.recipe,
        "m": place.m, "n": place.n, "k": view.k, "train_tokens": view.tokens, "steps": view.steps,
        "encoder": "tied",
    }  # fmt: skip
    chosen = pd.Series(True, index=curves.index)
    for column, value in wanted.items():
        chosen &= curves[column] == value
    return curves[chosen]


def _curves(chosen: dict[str, tuple[Look, pd.DataFrame]], column: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for style, part in chosen.values():
            over = part.groupby("step")[column]
            mean, low, high = over.mean(), over.min(), over.max()
            axes.fill_between(mean.index, low, high, color=style.colour, alpha=0.18, lw=0)
            axes.plot(mean.index, mean, style.line, color=style.colour, lw=1.1)
        axes.set_xlim(left=0)

    return draw


def data_efficiency(sources: Sources) -> list[Sheet]:
    """Fidelity over the number of training tokens."""
    return by_place(sources, _data_efficiency)


def _data_efficiency(sources: Sources, view: View) -> Sheet:
    title = "Data efficiency: fidelity over training tokens"
    published = Published(sources.published)
    sparse = {"support": "expander", "encoder": "tied"}
    tokens = view.values("train_tokens", train_tokens=None, **sparse)
    several = [
        d
        for d in view.values("d", train_tokens=None, **sparse)
        if len(view.values("train_tokens", train_tokens=None, d=d, **sparse)) > 1
    ]
    if not several:
        return Sheet(title, str(view), missing=["runs on fewer training tokens than the main ones"])
    legend: list[Line2D] = []
    panels, every, beside = [], [], False
    for metric in (CE, ERROR):
        lines = []
        for place, d in enumerate(several):
            cells = {float(count): view.cell(metric, "expander", d, tokens=count) for count in tokens}
            lines.append(Line(f"expander, d = {d}", step_look(place), cells))
            hollow = {float(count): published.cell(view, metric, "expander", d, tokens=count)
                      for count in tokens}  # fmt: skip
            lines.append(Line("", step_look(place), hollow, joined=False, hollow=True))
            beside = beside or any(hollow.values())
        dense = {float(count): view.cell(metric, "dense", tokens=count) for count in tokens}
        if sum(map(bool, dense.values())) > 1:
            lines.append(Line("dense, all n features", DENSE, dense))
        every += [cell for line in lines if not line.hollow for cell in line.cells.values()]
        panels.append(Panel("", Plot(lines), "training tokens (log)", LABELS[metric]))
        legend = legend or keys(lines)
    notes = [*seeds_note(every), f"All are trained for the same {view.steps:,} steps: fewer tokens are seen "
             "more often."]  # fmt: skip
    subtitle = str(view).replace(f"{view.tokens:,} tokens of {view.place.corpus}", view.place.corpus)
    return Sheet(title, subtitle, panels, [*legend, *published_key(beside)], notes)


def places(sources: Sources) -> list[Sheet]:
    """Across layers and models: CE recovered by layer, and retention over compression."""
    title = "Across layers and models"
    views = sources.views
    if len(views) < 2:
        return [Sheet(title, str(views[0]) if views else "", missing=["a second layer or model"])]
    panels, every = [], []
    by_model: dict[str, list[View]] = {}
    for view in views:
        by_model.setdefault(f"{view.place.model}, recipe {view.place.recipe}", []).append(view)
    for name, group in by_model.items():
        group = sorted(group, key=lambda view: view.place.layer)
        if len({view.place.layer for view in group}) < 2:
            continue
        ds = sorted({d for view in group for d in view.ds()})
        lines = [
            Line(f"d = {d}", step_look(place),
                 {float(view.place.layer): view.cell(CE, "expander", d) for view in group})
            for place, d in enumerate(ds)
        ]  # fmt: skip
        dense = {float(view.place.layer): view.cell(CE, "dense") for view in group}
        lines.append(Line("dense", DENSE, dense))
        every += [cell for line in lines for cell in line.cells.values()]
        panels.append(Panel(name, Plot(lines, log=False), "layer", LABELS[CE]))
    layered = keys(lines) if panels else []
    retained = []
    for place, view in enumerate(views):
        dense_cell = view.cell(CE, "dense")
        kept = {
            view.place.m / d: retention(view.cell(CE, "expander", d), dense_cell)
            for d in view.ds()
            if dense_cell
        }
        name = f"{view.place.model} layer {view.place.layer}, {view.place.recipe}"
        retained.append(Line(name, step_look(place), kept))
    panels.append(Panel("share of the dense SAE's CE recovered that is kept", Plot(retained),
                        "compression m/d (log)", "retention"))  # fmt: skip
    every += [cell for line in retained for cell in line.cells.values()]
    legend = [*layered, *keys(retained)]
    return [Sheet(title, f"k = {', '.join(sorted({str(view.k) for view in views}))}", panels, legend,
                  seeds_note(every))]  # fmt: skip


def retention(sparse: Cell, dense: Cell) -> Cell:
    """The share of the dense mean that each seed of the sparse cell keeps."""
    if not (sparse and dense) or not math.isfinite(dense.mean):
        return Cell()
    return Cell({seed: value / dense.mean for seed, value in sparse.values.items()}, sparse.asked)
