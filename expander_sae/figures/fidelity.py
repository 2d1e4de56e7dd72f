"""How fidelity depends on k, on the budget and on the encoder."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import (
    CE,
    DENSE,
    ERROR,
    LABELS,
    OVER_D,
    by_metric,
    by_place,
    curves,
    lines_sheet,
    with_published,
)
from expander_sae.figures.plots import (
    Line,
    Plot,
    draw_rows,
    fit,
    keys,
    label_room,
    level_key,
    mark_key,
    published_key,
    seeds_note,
)
from expander_sae.figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILLION, Look, step_look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.view import View


@by_place
def over_k(view: View) -> Sheet:
    """CE recovered and relative error over k, one series for each d."""
    title = "Fidelity over k: more active features for one dictionary"
    ks = view.values("k", k=None, support="expander", encoder="tied")
    if len(ks) < 2:
        return Sheet(title, str(view), missing=[f"expander at more than one k (found k = {_listed(ks)})"])

    def lines_of(metric: str) -> list[Line]:
        lines = []
        for place, d in enumerate(view.ds(k=None)):
            found = curves(view, metric, "expander", ks, "k", d=d)
            lines += with_published(f"expander, d = {d}", step_look(place), *found)
        dense, _ = curves(view, metric, "dense", ks, "k")
        return [*lines, Line("dense, all n features", DENSE, dense)]

    panels, lines = by_metric(lines_of, "k, active features of a token (log)")
    return lines_sheet(title, _without_k(view), panels, lines)


@by_place
def omp_gain(view: View) -> Sheet:
    """By how much OMP lowers the relative error, over k and d."""
    title = "What OMP gains over the trained encoder"
    ds = view.ds(k=None)
    ks = view.values("k", k=None, support="expander", encoder="tied")
    cells = {(d, k): gain(view, "expander", d, k) for d in ds for k in ks}
    if not any(cells.values()):
        return Sheet(title, str(view), missing=["relative error by OMP"])
    beside = {(d, k): _published_gain(view, d, k) for d, k in cells}
    over_d = [
        with_published(f"k = {k}", step_look(place),
                       {float(d): cells[d, k] for d in ds}, {float(d): beside[d, k] for d in ds})
        for place, k in enumerate(ks)
    ]  # fmt: skip
    over_k = [
        with_published(f"d = {d}", step_look(place),
                       {float(k): cells[d, k] for k in ks}, {float(k): beside[d, k] for k in ks})
        for place, d in enumerate(ds)
    ]  # fmt: skip
    shown = [("by d", over_d, OVER_D)]
    if len(ks) > 1:
        shown.insert(0, ("by k", over_k, "k, active features of a token (log)"))
    panels: list[Panel] = []
    legend: list[Line2D] = []
    for name, series, label in shown:
        lines = [line for pair in series for line in pair]
        panels.append(Panel(name, Plot(lines, band=(0.15, 0.25)), label, "1 − error(OMP)/error(encoder)"))
        legend += keys(lines)
    legend.append(mark_key("band: the published 15 to 25 %", marker="s", color="#E8E8E8", ms=7))
    legend += published_key(line for pair in over_d for line in pair)
    missing = [f"OMP at d = {d}, k = {k}" for (d, k), cell in cells.items()
               if not cell and view.estimate(ERROR, "expander", d, k=k)]  # fmt: skip
    return Sheet(title, _without_k(view), panels, legend, seeds_note(cells.values()), missing)


def gain(view: View, support: str, d: int, k: int) -> Estimate:
    """1 − (relative error by OMP)/(by the trained encoder), seed by seed."""
    own, by_omp = (view.estimate(ERROR, support, d, k=k, inference=name) for name in ("encoder", "omp"))
    return by_omp.paired(own, lambda omp, encoder: 1 - omp / encoder if encoder else float("nan"))


def _published_gain(view: View, d: int, k: int) -> Estimate:
    own, omp = (view.published(ERROR, "expander", d, k=k, inference=name) for name in ("encoder", "omp"))
    return Estimate({0: 1 - omp.mean / own.mean}, own.seeds) if own and omp else Estimate()


_BUDGETS = (
    ("expander", "encoder", "expander, trained encoder", Look(BLUE, "o", "-", 1.2, 5.0)),
    ("expander", "omp", "expander, OMP", Look(VERMILLION, "^", "-", 1.2, 5.2)),
    ("decoder", "encoder", "dense, as many decoder values", Look(BLACK, "P", ":", 1.0, 5.2)),
    ("decoder", "omp", "dense, as many decoder values, OMP", Look(ORANGE, "D", ":", 1.0, 4.2)),
    ("total", "encoder", "dense, own encoder, as many values in all", Look("#8C564B", "s", ":", 1.0, 4.4)),
    ("compute", "encoder", "dense, all n features, as many training multiply-adds",
     Look(GREEN, "X", "-.", 1.0, 5.2)),
)  # fmt: skip


def budget_cell(view: View, role: str, metric: str, d: int, inference: str) -> Estimate:
    """The dense SAE that matches the expander of this d: by decoder values, in total or by compute."""
    m, n = view.place.m, view.place.n
    if role == "expander":
        return view.estimate(metric, "expander", d, inference=inference)
    if role == "decoder":
        return view.estimate(metric, "dense", n=d * n // m, inference=inference)
    if role == "compute":
        return view.estimate(metric, "dense", steps=max(1, round(view.steps * d / m)), inference=inference)
    for encoder in ("warm_tied", "independent"):
        found = view.estimate(metric, "dense", n=d * n // (2 * m), encoder=encoder, inference=inference)
        if found:
            return found
    return Estimate()


@by_place
def matched_budget(view: View) -> Sheet:
    """The expander beside dense SAEs of equal storage, equal total size and equal training multiply-adds."""
    title = "Equal budgets: an expander against smaller or shorter-trained dense SAEs"
    ds = view.ds()
    matched = [budget_cell(view, role, metric, d, "encoder") for role in ("decoder", "total", "compute")
               for metric in (CE, ERROR) for d in ds]  # fmt: skip
    if not any(matched):
        return Sheet(title, str(view), missing=["any matched dense SAE"])

    def lines_of(metric: str) -> list[Line]:
        lines = []
        for role, inference, label, look in _BUDGETS:
            ours = {float(d): budget_cell(view, role, metric, d, inference) for d in ds}
            beside = {float(d): _published_budget(view, role, metric, d, inference) for d in ds}
            lines += with_published(label, look, ours, beside)
        return lines

    panels, lines = by_metric(
        lines_of, "d of the expander (log)",
        levels=lambda metric: [(view.estimate(metric, "dense").mean, DENSE)],
    )  # fmt: skip
    drawn = {line.label for line in lines if line.kept}
    missing = [label for _, _, label, _ in _BUDGETS if label not in drawn]
    out = [d for d in ds if d * view.place.n // view.place.m <= 2 * view.k]
    note = (
        f"At d = {_listed(out)} the dense SAE of equal storage would have at most 2k = {2 * view.k} "
        "features, hardly more than are active, and is not trained."
    )
    level = level_key(DENSE, "dense, all n features, full training")
    return lines_sheet(title, view, panels, lines, [level], [note] if out else [], missing)


def _published_budget(view: View, role: str, metric: str, d: int, inference: str) -> Estimate:
    if role == "expander":
        return view.published(metric, "expander", d, inference=inference).estimate
    if role == "decoder":
        small = d * view.place.n // view.place.m
        return view.published(metric, "dense", n=small, inference=inference).estimate
    return Estimate()


_ENCODERS = {
    "tied": "tied: the decoder itself",
    "warm_tied": "own, started at the decoder",
    "independent": "own, random start",
    "own_support": "own support of the same family",
    "full": "full: every row, free",
}


@by_place
def encoders(view: View) -> Sheet:
    """The encoder ablation, at each d and for the dense dictionary."""
    title = "Encoders: how much of the loss is the encoder's"
    cells = [cell for cell in view.matching(n=view.place.n)
             if cell.support in ("expander", "dense") and cell.encoder in _ENCODERS]  # fmt: skip
    present = [name for name in _ENCODERS if any(cell.encoder == name for cell in cells)]
    if len(present) < 2:
        return Sheet(title, str(view), missing=["encoders other than the tied one"])
    kinds = sorted({(cell.support == "dense", cell.d) for cell in cells})
    names = [_ENCODERS[name] for name in present]
    height, left = 0.36 * len(present) + 0.5, label_room(names)
    panels, every = [], []
    for metric in (CE, ERROR):
        lines = []
        for place, (dense, d) in enumerate(kinds):
            support = "dense" if dense else "expander"
            found = {
                float(at): view.estimate(metric, support, d, encoder=encoder)
                for at, encoder in enumerate(present)
            }
            look = DENSE if dense else step_look(place)
            label = "dense, all n features" if dense else f"expander, d = {d}"
            shift = 0.5 * ((place + 0.5) / len(kinds) - 0.5)
            lines.append(Line(label, look, found, joined=False, shift=shift))
        panels.append(Panel("", _rows_of(names, lines), LABELS[metric], height=height, left=left))
        every += lines
    absent = [label for name, label in _ENCODERS.items() if name not in present]
    return lines_sheet(title, view, panels, every, missing=absent)


def _rows_of(names: list[str], lines: list[Line]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        draw_rows(axes, names, lines)
        fit(axes, [cell for line in lines for cell in line.cells.values()])
        # fit sets the y range; the values of these panels lie on the x axis.
        axes.set_xlim(*axes.get_ylim())
        axes.set_ylim(len(names) - 0.4, -0.6)

    return draw


def _listed(values: list[int]) -> str:
    return ", ".join(str(value) for value in values) or "none"


def _without_k(view: View) -> str:
    return str(view).replace(f", k = {view.k};", ";")
