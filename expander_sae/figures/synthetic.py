"""Recovery of planted codes: ours beside the published table."""

from __future__ import annotations

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import with_published
from expander_sae.figures.plots import Line, Plot, keys, mark_key
from expander_sae.figures.style import step_look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results


def synthetic(results: Results) -> list[Sheet]:
    """Share of exactly recovered supports over k, a panel for each noise level."""
    title = "Recovery of planted codes by OMP, absolute selection"
    cells = results.recovery
    if not cells:
        return [Sheet(title, "m = 512, n = 4,096", missing=["synthetic recovery (split sigma0, …)"])]
    published = {
        (row["sigma"], int(row["d"]), int(row["k"])): Estimate({0: row["support_recovery_rate"]}, 3)
        for row in results.published_recovery.to_dict("records")
    }

    def over_k(found: dict[tuple[float, int, int], Estimate], sigma: float, d: int) -> dict[float, Estimate]:
        return {float(k): one for (noise, width, k), one in found.items() if (noise, width) == (sigma, d)}

    panels: list[Panel] = []
    every: list[Line] = []
    for sigma in sorted({key[0] for key in cells}):
        lines = []
        for place, d in enumerate(sorted({key[1] for key in cells})):
            ours, beside = over_k(cells, sigma, d), over_k(published, sigma, d)
            lines += with_published(f"d = {d}", step_look(place), ours, beside)
        panels.append(Panel(f"noise σ = {sigma:g}", Plot(lines, limits=(-0.04, 1.06)),
                            "k, planted features (log)", "exactly recovered supports"))  # fmt: skip
        every += lines
    published_mark = mark_key("hollow: published [1], 3 masks × 100 trials", marker="o", mfc="none", ms=6)
    masks = min(len(cell.values) for cell in cells.values())
    note = f"Masks per cell: {masks}; bars are 95 % intervals of the mean over masks."
    subtitle = "m = 512, n = 4,096; Gaussian coefficients"
    return [Sheet(title, subtitle, panels, [*keys(every), published_mark], [note])]
