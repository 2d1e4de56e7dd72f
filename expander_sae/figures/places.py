"""Across layers and models: CE recovered by layer, and retention over compression."""

from __future__ import annotations

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import CE, DENSE, LABELS, lines_sheet
from expander_sae.figures.plots import Line, Plot
from expander_sae.figures.style import step_look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View


def places(results: Results) -> list[Sheet]:
    """CE recovered by layer for each model of several, and retention at every place."""
    title = "Across layers and models"
    views = results.views
    if len(views) < 2:
        return [Sheet(title, str(views[0]) if views else "", missing=["a second layer or model"])]
    by_model: dict[str, list[View]] = {}
    for view in views:
        by_model.setdefault(f"{view.place.model}, recipe {view.place.recipe}", []).append(view)
    panels, every = [], []
    for name, group in by_model.items():
        if layered := _by_layer(sorted(group, key=lambda view: view.place.layer)):
            panels.append(Panel(name, Plot(layered, log=False), "layer", LABELS[CE]))
            every += layered
    retained = [_retained(view, place) for place, view in enumerate(views)]
    panels.append(Panel("share of the dense SAE's CE recovered that is kept", Plot(retained),
                        "compression m/d (log)", "retention"))  # fmt: skip
    every += retained
    subtitle = f"k = {', '.join(sorted({str(view.k) for view in views}))}"
    return [lines_sheet(title, subtitle, panels, every)]


def _by_layer(views: list[View]) -> list[Line]:
    """A line for each d; none of a model that has one layer only."""
    if len({view.place.layer for view in views}) < 2:
        return []
    ds = sorted({d for view in views for d in view.ds()})
    lines = [
        Line(f"d = {d}", step_look(place),
             {float(view.place.layer): view.estimate(CE, "expander", d) for view in views})
        for place, d in enumerate(ds)
    ]  # fmt: skip
    return [*lines, Line("dense", DENSE, {float(v.place.layer): v.estimate(CE, "dense") for v in views})]


def _retained(view: View, place: int) -> Line:
    dense = view.estimate(CE, "dense")
    kept = {view.place.m / d: retention(view.estimate(CE, "expander", d), dense) for d in view.ds()}
    return Line(f"{view.place.model} layer {view.place.layer}, {view.place.recipe}", step_look(place), kept)


def retention(sparse: Estimate, dense: Estimate) -> Estimate:
    """The share of the dense mean that each seed of the sparse estimate keeps."""
    return sparse.scaled(1 / dense.mean) if sparse and dense else Estimate()
