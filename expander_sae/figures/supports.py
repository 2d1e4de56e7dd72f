"""Does it matter which rows a column writes: controls, better masks and the dose of distinct supports."""

from __future__ import annotations

import math

from matplotlib.lines import Line2D

from expander_sae.figures.fidelity import CE, DENSE, ERROR, LABELS, by_place, published_key
from expander_sae.figures.layout import Line, Panel, Plot, Sheet, keys, level_key, seeds_note
from expander_sae.figures.sources import Sources
from expander_sae.figures.style import Look, look, step_look
from expander_sae.measurements.cells import Cell, View
from expander_sae.measurements.published import Published

NAMES = {
    "expander": "expander: d random rows",
    "right_regular": "right-regular: rows equally used too",
    "girth6": "girth 6: no two columns share two rows",
    "min_overlap": "fewest shared pairs of rows",
    "bernoulli": "Bernoulli: as many nonzeros, anywhere",
    "clustered_cover": "covering clustered: m/gcd(m, d) supports",
    "clustered": "clustered: ⌊m/d⌋ supports, rows left out",
    "pruned_retuned": "pruned from a dense SAE, retrained",
}
_BETTER = ("right_regular", "girth6", "min_overlap", "pruned_retuned")


def controls(sources: Sources) -> list[Sheet]:
    """Every sparse support at each d, and its paired difference to the expander."""
    return by_place(sources, _controls)


def support_look(support: str, others: list[str]) -> Look:
    """The look of a support; newcomers take spare ones."""
    return look(support, "encoder", others.index(support) if support in others else 0)


def _controls(sources: Sources, view: View) -> Sheet:
    title = "Support diversity: the same number of values on other supports"
    supports = [name for name in view.supports() if not name.startswith("dose")]
    newcomers = [name for name in supports if name not in NAMES]
    published = Published(sources.published)
    if len(supports) < 2:
        return Sheet(title, str(view), missing=["supports other than the expander"])
    legend: list[Line2D] = []
    panels, every, beside = [], [], False
    for metric in (CE, ERROR):
        lines, differences = [], []
        for place, support in enumerate(supports):
            style = support_look(support, newcomers)
            shift = 0.0 if support == "expander" else 0.018 * (place - len(supports) / 2)
            ds = view.ds(support)
            cells = {float(d): view.cell(metric, support, d) for d in ds}
            label = NAMES.get(support, support.replace("_", " "))
            lines.append(Line(label, style, cells, joined=support == "expander", shift=shift))
            hollow = {float(d): published.cell(view, metric, support, d) for d in ds}
            lines.append(Line("", style, hollow, joined=False, hollow=True, shift=shift))
            beside = beside or any(hollow.values())
            if support != "expander":
                paired = {float(d): view.cell(metric, support, d).less(view.cell(metric, "expander", d))
                          for d in ds}  # fmt: skip
                differences.append(Line(label, style, paired, joined=False, shift=shift))
        every += [cell for line in lines if not line.hollow for cell in line.cells.values()]
        level = view.cell(metric, "dense").mean
        panels.append(Panel("", Plot(lines, levels=[(level, DENSE)]), "d, nonzeros of a column (log)",
                            LABELS[metric]))  # fmt: skip
        what = "CE recovered" if metric == CE else "relative error"
        panels.append(Panel("difference to the expander, same seeds", Plot(differences, zero=True),
                            "d, nonzeros of a column (log)", f"Δ {what}"))  # fmt: skip
        legend = legend or keys(lines)
    legend += [level_key(DENSE, "dense, all n features")]
    missing = [NAMES[name] for name in NAMES if name not in supports]
    return Sheet(title, str(view), panels, [*legend, *published_key(beside)], seeds_note(every), missing)


def distinct_supports(support: str, m: int, n: int, d: int) -> int | None:
    """How many different supports the columns have; None for a family that is no step of the dose.

    Those of clustered_cover begin at j·d mod m, and so at every multiple of gcd(m, d).
    """
    if support.startswith("dose") and support[4:].isdigit():
        return int(support[4:])
    if support == "clustered_cover":
        return min(n, m // math.gcd(m, d))
    return n if support in ("right_regular", "expander") else None


def dose(sources: Sources) -> list[Sheet]:
    """Fidelity over the number of distinct supports, from clustered_cover to one for each feature."""
    return by_place(sources, _dose)


def _dose(sources: Sources, view: View) -> Sheet:
    title = "The dose of support diversity: distinct supports among n columns"
    place = view.place
    doses = [name for name in view.supports() if name.startswith("dose")]
    if not doses:
        return Sheet(title, str(view), missing=["runs of the family dose{p}"])
    ds = sorted({d for name in doses for d in view.ds(name)})
    joined = [*doses, "right_regular"]
    legend: list[Line2D] = []
    panels, every = [], []
    for metric in (CE, ERROR):
        lines = []
        for at, d in enumerate(ds):
            style = step_look(at)
            steps = _over_doses(view, metric, joined, d)
            lines.append(Line(f"d = {d}: dose, ending in right-regular", style, steps))
            ends = {"clustered_cover": ("P", "covering clustered"), "expander": ("*", "expander")}
            for support, (marker, name) in ends.items():
                count = distinct_supports(support, place.m, place.n, d)
                cell = view.cell(metric, support, d)
                # Beside the right-regular end, which has as many supports.
                shift = 0.03 if support == "expander" else 0.0
                lines.append(Line(f"d = {d}: {name}", Look(style.colour, marker, "-", 1.0, 6.0),
                                  {float(count or 0): cell} if cell else {}, joined=False,
                                  shift=shift))  # fmt: skip
        every += [cell for line in lines for cell in line.cells.values()]
        panels.append(Panel("", Plot(lines), "distinct supports p (log)", LABELS[metric], height=2.2))
        legend = legend or keys(lines)
    missing = [] if view.ds("right_regular") else ["right-regular supports, the end of the dose"]
    return Sheet(title, str(view), panels, legend, seeds_note(every), missing)


def _over_doses(view: View, metric: str, supports: list[str], d: int) -> dict[float, Cell]:
    found = {}
    for support in supports:
        count = distinct_supports(support, view.place.m, view.place.n, d)
        cell = view.cell(metric, support, d)
        if cell and count:
            found[float(count)] = cell
    return found
