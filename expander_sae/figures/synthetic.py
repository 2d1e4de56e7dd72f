"""Recovery of planted codes: ours beside the published table."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.lines import Line2D

from expander_sae.figures.layout import Line, Panel, Plot, Sheet, keys, mark_key
from expander_sae.figures.sources import Sources
from expander_sae.figures.style import step_look
from expander_sae.measurements.cells import Cell


def recovery_cells(metrics: pd.DataFrame) -> dict[tuple[float, int, int], Cell]:
    """(σ, d, k) → rate of exact recovery of each mask, from rows of the model `synthetic`."""
    rows = metrics[(metrics["model"] == "synthetic") & (metrics["metric"] == "exact_recovery")]
    found: dict[tuple[float, int, int], dict[int, float]] = {}
    for row in rows[["split", "d", "k", "seed", "value"]].itertuples(index=False, name=None):
        split, d, k, seed, value = row
        if str(split).startswith("sigma") and math.isfinite(value):
            found.setdefault((float(split[5:]), int(d), int(k)), {})[int(seed)] = float(value)
    return {key: Cell(values, len(values)) for key, values in sorted(found.items())}


def synthetic(sources: Sources) -> list[Sheet]:
    """Share of exactly recovered supports over k, a panel for each noise level."""
    title = "Recovery of planted codes by OMP, absolute selection"
    cells = recovery_cells(sources.metrics)
    table = sources.published_synthetic
    if not cells:
        return [Sheet(title, "m = 512, n = 4,096", missing=["synthetic recovery (split sigma0, …)"])]
    published = {
        (row["sigma"], int(row["d"]), int(row["k"])): row["support_recovery_rate"]
        for row in table.to_dict("records")
    }
    panels: list[Panel] = []
    legend: list[Line2D] = []
    for sigma in sorted({key[0] for key in cells}):
        lines = []
        for place, d in enumerate(sorted({key[1] for key in cells})):
            mine = {float(k): cell for (s, at, k), cell in cells.items() if (s, at) == (sigma, d)}
            hollow = {float(k): Cell({0: rate}, 3) for (s, at, k), rate in published.items()
                      if (s, at) == (sigma, d)}  # fmt: skip
            lines.append(Line(f"d = {d}", step_look(place), mine))
            lines.append(Line("", step_look(place), hollow, joined=False, hollow=True))
        panels.append(Panel(f"noise σ = {sigma:g}", Plot(lines, limits=(-0.04, 1.06)),
                            "k, planted features (log)", "exactly recovered supports"))  # fmt: skip
        legend = legend or keys(lines)
    legend.append(mark_key("hollow: published [1], 3 masks × 100 trials", marker="o", mfc="none", ms=6))
    masks = sorted({len(cell.values) for cell in cells.values()})
    note = f"Masks per cell: {masks[0]}; bars are 95 % intervals of the mean over masks."
    return [Sheet(title, "m = 512, n = 4,096; Gaussian coefficients", panels, legend, [note])]
