"""Does it matter which rows a column writes: controls, better masks and the dose of distinct supports."""

from __future__ import annotations

from typing import Any

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import (
    CE,
    DENSE,
    ERROR,
    OVER_D,
    by_metric,
    by_place,
    curves,
    lines_sheet,
    with_published,
)
from expander_sae.figures.plots import Line, Plot, level_key
from expander_sae.figures.style import Look, looks_for, step_look
from expander_sae.masks.supports import SUPPORTS, described, support_order
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.view import View


@by_place
def controls(view: View) -> Sheet:
    """Every sparse support at each d, and its paired difference to the expander."""
    title = "Support diversity: the same number of values on other supports"
    supports = [name for name in view.supports() if not described(name).counts]
    looks = looks_for(view.index.supports)
    if len(supports) < 2:
        return Sheet(title, str(view), missing=["supports other than the expander"])

    def style(support: str) -> dict[str, Any]:
        place = 0.018 * (supports.index(support) - len(supports) / 2)
        shift = 0.0 if support == "expander" else place
        label = described(support).control or support.replace("_", " ")
        return {"label": label, "look": looks(support, "encoder"), "shift": shift}

    def lines_of(metric: str) -> list[Line]:
        lines = []
        for support in supports:
            ours, beside = curves(view, metric, support, view.ds(support))
            joined = support == "expander"
            lines += with_published(ours=ours, published=beside, joined=joined, **style(support))
        return lines

    def differences(metric: str) -> Panel:
        lines = []
        for support in supports:
            if support != "expander":
                paired = {
                    float(d): view.estimate(metric, support, d).less(view.estimate(metric, "expander", d))
                    for d in view.ds(support)
                }
                lines.append(Line(cells=paired, joined=False, **style(support)))
        what = "Δ CE recovered" if metric == CE else "Δ relative error"
        return Panel("difference to the expander, same seeds", Plot(lines, zero=True), OVER_D, what)

    own, lines = by_metric(
        lines_of, OVER_D, levels=lambda metric: [(view.estimate(metric, "dense").mean, DENSE)]
    )
    panels = [own[0], differences(CE), own[1], differences(ERROR)]
    level = level_key(DENSE, "dense, all n features")
    absent = sorted(SUPPORTS.keys() - set(supports), key=support_order)
    missing = [SUPPORTS[name].control for name in absent if SUPPORTS[name].control]
    return lines_sheet(title, view, panels, lines, [level], missing=missing)


@by_place
def dose(view: View) -> Sheet:
    """Fidelity over the number of distinct supports, from clustered_cover to one for each feature."""
    title = "The dose of support diversity: distinct supports among n columns"
    # Others count too, such as the 80 of `hybrid80`, but not their distinct supports.
    doses = [name for name in view.supports() if described(name).counts and described(name).distinct]
    if not doses:
        return Sheet(title, str(view), missing=["runs of the family dose{p}"])

    def over(metric: str, supports: list[str], d: int) -> dict[float, Estimate]:
        counts = {name: described(name).distinct_supports(view.place.m, view.place.n, d) for name in supports}
        found = {name: view.estimate(metric, name, d) for name in supports}
        return {float(counts[name] or 0): estimate for name, estimate in found.items() if estimate}

    def lines_of(metric: str) -> list[Line]:
        lines = []
        for at, d in enumerate(sorted({d for name in doses for d in view.ds(name)})):
            style = step_look(at)
            steps = over(metric, [*doses, "right_regular"], d)
            lines.append(Line(f"d = {d}: dose, ending in right-regular", style, steps))
            # Beside the right-regular end, which has as many supports.
            for support, marker, name, shift in (("clustered_cover", "P", "covering clustered", 0.0),
                                                 ("expander", "*", "expander", 0.03)):  # fmt: skip
                end = Look(style.colour, marker, "-", 1.0, 6.0)
                found = over(metric, [support], d)
                lines.append(Line(f"d = {d}: {name}", end, found, joined=False, shift=shift))
        return lines

    panels, lines = by_metric(lines_of, "distinct supports p (log)", height=2.2)
    missing = [] if view.ds("right_regular") else ["right-regular supports, the end of the dose"]
    return lines_sheet(title, view, panels, lines, missing=missing)
