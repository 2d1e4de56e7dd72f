"""Which dictionary for the bytes and the time that one has: three metrics over bytes on disk, and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from expander_sae.figures.answer_panel import GREY, AnswerPanel
from expander_sae.figures.answer_rows import BUDGETS, answers
from expander_sae.figures.answer_table import AnswerTable
from expander_sae.figures.answer_words import caption
from expander_sae.figures.candidate_words import Names, kind_text
from expander_sae.figures.candidates import CE, ERROR, METRICS, SELECTIVITY, Candidate, Group, candidates
from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.plots import mark_key
from expander_sae.figures.style import MUTED, Looks, looks_for
from expander_sae.masks.supports import support_order
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from expander_sae.pursuit.inference import ENCODER

TITLE = "Which dictionary should I use, for the bytes and the time I have?"
_LABELS = {
    CE: "CE recovered  ↑ better\n(1: the model itself)",
    ERROR: "relative error  ↓ better\n‖h − ĥ‖ / ‖h‖",
    SELECTIVITY: "selectivity  ↑ better\n(F1 of best feature)",
}


def choices(results: Results) -> list[Sheet]:
    """A page for each place at its main budget and k that has more to compare than float32 and fidelity."""
    looks = looks_for(results.index.supports)
    found = [(view, candidates(view)) for view in results.views]
    return [sheet_of(view, every, looks) for view, every in found if _worth_showing(every)]


def _worth_showing(every: Sequence[Candidate]) -> bool:
    """There is a floor, a second precision or selectivity; otherwise the other pages say it all."""
    groups = {one.group for one in every}
    beside = groups - {"trained"} or any(SELECTIVITY in one.estimates for one in every)
    return "trained" in groups and bool(beside or len({one.precision for one in every}) > 1)


def sheet_of(view: View, every: Sequence[Candidate], looks: Looks) -> Sheet:
    """The page of one place."""
    names = Names.of(every, view.place.n)
    limits = _limits([one.size for one in every])
    metrics = [metric for metric in METRICS if any(metric in one.estimates for one in every)]
    budgets = [budget for budget in BUDGETS if limits[0] < budget < limits[1]]
    panels = [
        Panel(
            "", AnswerPanel(metric, every, names, limits, looks, budgets, metric == metrics[0],
                            metric == metrics[-1]),
            "bytes on disk (log scale)" if metric == metrics[-1] else "", _LABELS[metric],
            height=1.85, left=0.74, wide=True, above=0.2 if metric == metrics[0] else 0.04,
            below=0.4 if metric == metrics[-1] else 0.06,
        )
        for metric in metrics
    ]  # fmt: skip
    keys = _legend(every, looks)
    key = Panel("", partial(_key, keys), height=0.137 * -(-len(keys) // _KEYS), left=0.12, wide=True,
                above=0.0, below=0.02)  # fmt: skip
    table = AnswerTable(answers(every), names, looks)
    chosen = Panel("", table, height=table.height, left=0.12, wide=True, above=0.04, below=0.08)
    drawn = [panel.draw for panel in panels if isinstance(panel.draw, AnswerPanel)]
    notes = [*table.notes(), *_outside(drawn, names), *_lost(view), caption(every)]
    return Sheet(TITLE, str(view), [key, *panels, chosen], notes=notes)


def _outside(panels: Sequence[AnswerPanel], names: Names) -> list[str]:
    """What is so much worse than the rest that a panel leaves it out."""
    found = [
        f"{names(one)}{' by OMP' if one.inference == 'omp' else ''}, {_LABELS[panel.metric].split('  ')[0]} "
        f"{one.mean(panel.metric):.3f}".replace("-", "−")
        for panel in panels
        for one in panel.outside()
    ]
    return [f"Too far off for the panels: {'; '.join(found)}."] if found else []


def _lost(view: View) -> list[str]:
    """What was imported and rebuilds nothing, which no panel has."""
    cells = [cell for cell in view.imports() if view.index.diverged(cell, ENCODER)]
    names = ", ".join(kind_text(cell.support) for cell in cells)
    return [f"Imported and left out, since their encoders' errors exceed 1: {names}."] if names else []


_KEYS = 4
"""Entries of a line of the key."""


def _key(entries: Sequence[Line2D], axes: Axes) -> None:
    axes.set_axis_off()
    axes.legend(handles=list(entries), loc="upper left", bbox_to_anchor=(0, 1), ncols=_KEYS, borderaxespad=0,
                borderpad=0, labelspacing=0.45, handlelength=1.2, columnspacing=1.6)  # fmt: skip


def _limits(sizes: Sequence[float]) -> tuple[float, float]:
    low, high = min(sizes), max(sizes)
    """Of bytes, with room on the right for the names of the largest."""
    room = 0.07 * math.log(high / low) or 1.0
    return low * math.exp(-room), high * math.exp(2 * room)


def _legend(every: Sequence[Candidate], looks: Looks) -> list[Line2D]:
    found: dict[str, Line2D] = {}
    coloured = {one.role for one in every if one.group in ("trained", "imported")}
    for role in sorted(coloured, key=support_order):
        look = looks(role, "encoder")
        label = kind_text(role)
        found[label] = mark_key(label, marker=look.marker, color=look.colour, mec="white", mew=0.5)
    more = [
        mark_key("filled: read by its encoder (one pass)", marker="o", color=MUTED),
        mark_key("hollow: read by OMP (k rounds)", marker="o", mfc="white", color=MUTED),
    ]
    greys: dict[Group, str] = {"untrained": "grey: nobody trained it", "frozen": "grey: trained in part"}
    for group, label in greys.items():
        if any(one.group == group for one in every):
            more.append(mark_key(label, marker=GREY[group].marker, color=MUTED))
    return [*found.values(), *more]
