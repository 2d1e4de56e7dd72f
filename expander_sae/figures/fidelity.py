"""How fidelity depends on k, on the budget and on the encoder."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from expander_sae.figures.layout import (
    Line,
    Panel,
    Plot,
    Sheet,
    draw_rows,
    fit,
    keys,
    label_room,
    level_key,
    mark_key,
    seeds_note,
)
from expander_sae.figures.sources import Sources
from expander_sae.figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILLION, Look, step_look
from expander_sae.measurements.cells import Cell, Run, View
from expander_sae.measurements.published import Published

CE, ERROR = "ce_recovered", "relative_error"
LABELS = {CE: "CE recovered ↑", ERROR: "relative error ↓"}
DENSE = Look(BLACK, "h", "--", 1.0, 5.0)


def by_place(sources: Sources, draw: Callable[[Sources, View], Sheet]) -> list[Sheet]:
    """A sheet for each place that has something to show; the first in any case."""
    sheets = [draw(sources, view) for view in sources.views]
    return sheets[:1] + [sheet for sheet in sheets[1:] if sheet.panels]


def published_key(shown: bool) -> list[Line2D]:
    """The legend's entry for published means, where there are any."""
    return [mark_key("hollow: published mean [1]", marker="o", mfc="none", ms=6)] if shown else []


def over_k(sources: Sources) -> list[Sheet]:
    """CE recovered and relative error over k, one series for each d."""
    return by_place(sources, _over_k)


def _over_k(sources: Sources, view: View) -> Sheet:
    title = "Fidelity over k: more active features for one dictionary"
    published = Published(sources.published)
    ks = view.values("k", k=None, support="expander", encoder="tied")
    if len(ks) < 2:
        return Sheet(title, str(view), missing=[f"expander at more than one k (found k = {_listed(ks)})"])
    legend: list[Line2D] = []
    panels, every, beside = [], [], False
    for metric in (CE, ERROR):
        lines = []
        for place, d in enumerate(view.values("d", k=None, support="expander", encoder="tied")):
            cells = {float(k): view.cell(metric, "expander", d, k=k) for k in ks}
            lines.append(Line(f"expander, d = {d}", step_look(place), _kept(cells)))
            hollow = {float(k): published.cell(view, metric, "expander", d, k=k) for k in ks}
            lines.append(Line("", step_look(place), _kept(hollow), joined=False, hollow=True))
            beside = beside or any(hollow.values())
        dense = {float(k): view.cell(metric, "dense", k=k) for k in ks}
        lines.append(Line("dense, all n features", DENSE, _kept(dense)))
        every += [cell for line in lines if not line.hollow for cell in line.cells.values()]
        panels.append(Panel("", Plot(lines), "k, active features of a token (log)", LABELS[metric]))
        legend = legend or keys(lines)
    return Sheet(title, _without_k(view), panels, [*legend, *published_key(beside)], seeds_note(every))


def omp_gain(sources: Sources) -> list[Sheet]:
    """By how much OMP lowers the relative error, over k and d."""
    return by_place(sources, _omp_gain)


def _omp_gain(sources: Sources, view: View) -> Sheet:
    title = "What OMP gains over the trained encoder"
    published = Published(sources.published)
    ds = view.values("d", k=None, support="expander", encoder="tied")
    ks = view.values("k", k=None, support="expander", encoder="tied")
    cells = {(d, k): gain(view, "expander", d, k) for d in ds for k in ks}
    if not any(cells.values()):
        return Sheet(title, str(view), missing=["relative error by OMP"])
    beside = {(d, k): _published_gain(published, view, d, k) for d in ds for k in ks}
    panels: list[Panel] = []
    legend: list[Line2D] = []
    band = [mark_key("band: the published 15 to 25 %", marker="s", color="#E8E8E8", ms=7)]
    by_d = len(ks) < 2
    for over, others, label in ([(ds, ks, "d, nonzeros of a column (log)")] if by_d else [
        (ks, ds, "k, active features of a token (log)"), (ds, ks, "d, nonzeros of a column (log)"),
    ]):  # fmt: skip
        lines = []
        for place, other in enumerate(others):
            where = (lambda x, o=other: (o, x)) if over is ks else (lambda x, o=other: (x, o))
            name = f"d = {other}" if over is ks else f"k = {other}"
            mine = {float(x): cells[where(x)] for x in over}
            lines.append(Line(name, step_look(place), _kept(mine)))
            hollow = {float(x): beside[where(x)] for x in over}
            lines.append(Line("", step_look(place), _kept(hollow), joined=False, hollow=True))
        panels.append(Panel("by k" if over is ks else "by d", Plot(lines, band=(0.15, 0.25)), label,
                            "1 − error(OMP)/error(encoder)"))  # fmt: skip
        legend += keys(lines)
    missing = [f"OMP at d = {d}, k = {k}" for (d, k), cell in cells.items()
               if not cell and view.cell(ERROR, "expander", d, k=k)]  # fmt: skip
    shown = published_key(any(beside.values()))
    return Sheet(title, _without_k(view), panels, [*legend, *band, *shown],
                 seeds_note(cells.values()), missing)  # fmt: skip


def gain(view: View, support: str, d: int | None, k: int | None = None, n: int | None = None) -> Cell:
    """1 − (relative error by OMP)/(by the trained encoder), seed by seed."""
    encoder = view.cell(ERROR, support, d, k=k, n=n)
    return view.cell(ERROR, support, d, k=k, n=n, inference="omp").paired(
        encoder, lambda omp, own: 1 - omp / own if own else float("nan")
    )


def _published_gain(published: Published, view: View, d: int, k: int) -> Cell:
    own = published.value(view, ERROR, "expander", d, k=k)
    omp = published.value(view, ERROR, "expander", d, k=k, inference="omp")
    return Cell({0: 1 - omp.mean / own.mean}, own.seeds) if own and omp else Cell()


def matched_budget(sources: Sources) -> list[Sheet]:
    """The expander beside dense SAEs of equal storage, equal total size and equal training multiply-adds."""
    return by_place(sources, _matched_budget)


_BUDGETS = (
    ("expander", "encoder", "expander, trained encoder", Look(BLUE, "o", "-", 1.2, 5.0)),
    ("expander", "omp", "expander, OMP", Look(VERMILLION, "^", "-", 1.2, 5.2)),
    ("decoder", "encoder", "dense, as many decoder values", Look(BLACK, "P", ":", 1.0, 5.2)),
    ("decoder", "omp", "dense, as many decoder values, OMP", Look(ORANGE, "D", ":", 1.0, 4.2)),
    ("total", "encoder", "dense, own encoder, as many values in all", Look("#8C564B", "s", ":", 1.0, 4.4)),
    ("compute", "encoder", "dense, all n features, as many training multiply-adds",
     Look(GREEN, "X", "-.", 1.0, 5.2)),
)  # fmt: skip


def budget_cell(view: View, role: str, metric: str, d: int, inference: str) -> Cell:
    """The dense SAE that matches the expander of this d: by decoder values, in total or by compute."""
    m, n = view.place.m, view.place.n
    if role == "expander":
        return view.cell(metric, "expander", d, inference=inference)
    if role == "decoder":
        return view.cell(metric, "dense", n=d * n // m, inference=inference)
    if role == "compute":
        return view.cell(metric, "dense", steps=max(1, round(view.steps * d / m)), inference=inference)
    for encoder in ("warm_tied", "independent"):
        found = view.cell(metric, "dense", n=d * n // (2 * m), encoder=encoder, inference=inference)
        if found:
            return found
    return Cell()


def _matched_budget(sources: Sources, view: View) -> Sheet:
    title = "Equal budgets: an expander against smaller or shorter-trained dense SAEs"
    ds = view.ds()
    published = Published(sources.published)
    legend: list[Line2D] = []
    panels, every, beside = [], [], False
    missing: list[str] = []
    for metric in (CE, ERROR):
        lines = []
        for role, inference, label, look in _BUDGETS:
            cells = {float(d): budget_cell(view, role, metric, d, inference) for d in ds}
            lines.append(Line(label, look, _kept(cells)))
            if role in ("expander", "decoder"):
                small = {float(d): d * view.place.n // view.place.m for d in ds}
                hollow = {
                    d: published.cell(view, metric, "expander", int(d), inference=inference)
                    if role == "expander"
                    else published.cell(view, metric, "dense", n=features, inference=inference)
                    for d, features in small.items()
                }
                lines.append(Line("", look, _kept(hollow), joined=False, hollow=True))
                beside = beside or any(hollow.values())
        every += [cell for line in lines if not line.hollow for cell in line.cells.values()]
        level = view.cell(metric, "dense").mean
        panels.append(Panel("", Plot(lines, levels=[(level, DENSE)]), "d of the expander (log)",
                            LABELS[metric]))  # fmt: skip
        legend += [entry for entry in keys(lines) if entry.get_label() not in [e.get_label() for e in legend]]
        missing += [line.label for line in lines if line.label and not line.kept]
    legend += [level_key(DENSE, "dense, all n features, full training")]
    matched = [budget_cell(view, role, metric, d, "encoder") for role in ("decoder", "total", "compute")
               for metric in (CE, ERROR) for d in ds]  # fmt: skip
    if not any(matched):
        return Sheet(title, str(view), missing=["any matched dense SAE"])
    out = [d for d in ds if d * view.place.n // view.place.m <= 2 * view.k]
    notes = seeds_note(every)
    if out:
        notes.append(
            f"At d = {_listed(out)} the dense SAE of equal storage would have at most 2k = {2 * view.k} "
            "features, hardly more than are active, and is not trained."
        )
    return Sheet(title, str(view), panels, [*legend, *published_key(beside)], notes,
                 [name for name in dict.fromkeys(missing) if missing.count(name) == 2])  # fmt: skip


_ENCODERS = {
    "tied": "tied: the decoder itself",
    "warm_tied": "own, started at the decoder",
    "independent": "own, random start",
    "own_support": "own support of the same family",
    "full": "full: every row, free",
}


def encoders(sources: Sources) -> list[Sheet]:
    """The encoder ablation, at each d and for the dense dictionary."""
    return by_place(sources, _encoders)


def _encoders(sources: Sources, view: View) -> Sheet:
    title = "Encoders: how much of the loss is the encoder's"
    runs: list[tuple[str, Run]] = []
    for encoder in _ENCODERS:
        found = view.matching(encoder=encoder, support="expander", n=view.place.n)
        found += view.matching(encoder=encoder, support="dense", n=view.place.n)
        runs += [(encoder, run) for run in found]
    kinds = sorted({(run.support == "dense", run.d) for _, run in runs})
    if len({encoder for encoder, _ in runs}) < 2:
        return Sheet(title, str(view), missing=["encoders other than the tied one"])
    present = [name for name in _ENCODERS if any(encoder == name for encoder, _ in runs)]
    legend: list[Line2D] = []
    panels, every = [], []
    for metric in (CE, ERROR):
        lines = []
        for place, (dense, d) in enumerate(kinds):
            support = "dense" if dense else "expander"
            cells = {
                float(at): view.cell(metric, support, d, encoder=encoder)
                for at, encoder in enumerate(present)
            }
            look = DENSE if dense else step_look(place)
            label = "dense, all n features" if dense else f"expander, d = {d}"
            shift = 0.5 * ((place + 0.5) / len(kinds) - 0.5)
            lines.append(Line(label, look, _kept(cells), joined=False, shift=shift))
        every += [cell for line in lines for cell in line.cells.values()]
        names = [_ENCODERS[name] for name in present]
        panels.append(Panel("", _rows_of(names, lines), LABELS[metric],
                            height=0.36 * len(present) + 0.5, left=label_room(names)))  # fmt: skip
        legend = legend or keys(lines)
    absent = [_ENCODERS[name] for name in _ENCODERS if name not in present]
    return Sheet(title, str(view), panels, legend, seeds_note(every), absent)


def _rows_of(names: list[str], lines: list[Line]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        draw_rows(axes, names, lines)
        cells = [cell for line in lines for cell in line.kept.values()]
        fit(axes, cells)
        # fit sets the y range; the values of these panels lie on the x axis.
        axes.set_xlim(*axes.get_ylim())
        axes.set_ylim(len(names) - 0.4, -0.6)

    return draw


def _kept(cells: dict[float, Cell]) -> dict[float, Cell]:
    return {x: cell for x, cell in cells.items() if cell}


def _listed(values: list[int]) -> str:
    return ", ".join(str(value) for value in values) or "none"


def _without_k(view: View) -> str:
    return str(view).replace(f", k = {view.k};", ";")
