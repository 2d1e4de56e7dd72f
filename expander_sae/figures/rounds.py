"""What each round of a pursuit buys, on decoders trained with the rounds by which they are read."""

from __future__ import annotations

from dataclasses import replace

from expander_sae.figures.cost import dictionaries, dictionary_name
from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import ERROR, LABELS, by_place, lines_sheet
from expander_sae.figures.plots import Line, Plot
from expander_sae.figures.style import step_look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.view import View
from expander_sae.pursuit.inference import ENCODER, rounds_of
from expander_sae.study.run import Cell


def multiply_adds(cell: Cell, rounds: int) -> float:
    """Millions of them a token, in correlating all columns once a round; an encoder does so once.

    Least squares on what is held take k² and are left out: they are the same for every dictionary.
    """
    return rounds * cell.n * cell.d / 1e6


def by_rounds(view: View, cell: Cell, trained: bool) -> dict[int, Estimate]:
    """Rounds → relative error of the cell, or of the one `trained` with them, by codes of so many rounds."""
    found: dict[int, Estimate] = {}
    for name in sorted(view.index.inferences):
        rounds = rounds_of(name, cell.k)
        if rounds is not None:
            of = replace(cell, codes=name) if trained else cell
            estimate = view.index.estimate(of, ERROR, name)
            if estimate:
                found[rounds] = estimate
    return found


@by_place
def rounds(view: View) -> Sheet:
    """Relative error over the number of rounds and over multiply-adds."""
    title = "What a round of a pursuit buys"
    over_rounds: list[Line] = []
    over_work: list[Line] = []
    trained = False
    for place, cell in enumerate(one for one in dictionaries(view) if one.encoder == "tied"):
        own = view.index.estimate(cell, ERROR, ENCODER)
        series = (
            ("-", by_rounds(view, cell, trained=True)),
            (":", by_rounds(view, cell, trained=False)),
            ("", {1: own} if own else {}),
        )
        for dash, found in series:
            look = replace(
                step_look(place), line=dash or "-", marker=step_look(place).marker if dash else "*"
            )
            shown = {multiply_adds(cell, x): one for x, one in found.items()}
            over_rounds.append(Line(dictionary_name(cell), look, {float(x): found[x] for x in found}))
            over_work.append(Line(dictionary_name(cell), look, shown))
            trained |= dash == "-" and bool(found)
    if not trained:
        return Sheet(title, str(view), missing=["decoders trained with codes by a pursuit"])
    panels = [
        Panel("rounds", Plot(over_rounds), "rounds a token (log); k of them are OMP", LABELS[ERROR]),
        Panel("work", Plot(over_work), "million multiply-adds a token (log)", LABELS[ERROR]),
    ]
    notes = [
        "Solid: trained with as many rounds as it is read by. Dotted: trained with codes by its encoder.",
        "Star: read by that encoder.",
        "Multiply-adds are those of correlations: n·d a round, and n·d of a tied encoder.",
    ]
    return lines_sheet(title, view, panels, over_rounds, notes=notes)
