"""Pursuits on trained, frozen decoders."""

from __future__ import annotations

import re

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import ERROR, OVER_D, by_place, curves, lines_sheet, with_published
from expander_sae.figures.plots import Line, Plot
from expander_sae.figures.style import BLUE, GREEN, PURPLE, VERMILLION, Look, step_look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.index import Index
from expander_sae.measurements.view import View

METHODS = {
    "encoder": ("trained encoder", Look(BLUE, "o", "-", 1.2, 5.0)),
    "omp": ("OMP", Look(VERMILLION, "^", "-", 1.2, 5.4)),
    "niht": ("NIHT", Look(GREEN, "s", "--", 1.0, 4.4)),
    "cosamp": ("CoSaMP", Look(PURPLE, "D", "--", 1.0, 4.2)),
}
_BLOCK = re.compile(r"block_omp_(\d+)$")


def pursuit_cell(view: View, inference: str, d: int, support: str = "expander") -> Estimate:
    """Relative error of a pursuit, all on the same tokens (split `pursuit`)."""
    return view.estimate(ERROR, support, d, inference=inference, split="pursuit")


def block_sizes(index: Index) -> list[int]:
    """The L of block OMP that the table has."""
    found = map(_BLOCK.match, index.inferences)
    return sorted(int(match.group(1)) for match in found if match)


@by_place
def pursuits(view: View) -> Sheet:
    """Relative error of every pursuit over d, and of block OMP over the block's size."""
    title = "Decoding trained dictionaries by pursuit"
    ds = view.ds()
    lines: list[Line] = []
    for inference, (label, style) in METHODS.items():
        ours = {float(d): pursuit_cell(view, inference, d) for d in ds}
        _, beside = curves(view, ERROR, "expander", ds, inference=inference)
        lines += with_published(label, style, ours, beside)
    sizes = block_sizes(view.index)
    blocks = [
        Line(f"block OMP, d = {d}", step_look(place),
             {float(size): pursuit_cell(view, f"block_omp_{size}", d) for size in sizes})
        for place, d in enumerate(ds)
    ]  # fmt: skip
    missing = [line.label for line in lines if not (line.hollow or line.kept)]
    blocked = any(line.kept for line in blocks)
    if len(missing) == len(METHODS) and not blocked:
        return Sheet(title, str(view), missing=["pursuits on the tokens of the split “pursuit”"])
    panels = [Panel("all methods", Plot(lines), OVER_D, "relative error ↓")]
    if blocked:
        panels.append(Panel("block OMP: L columns a round", Plot(blocks), "L (log); L = 1 is OMP",
                            "relative error ↓"))  # fmt: skip
    else:
        missing.append("block OMP")
    return lines_sheet(title, view, panels, [*lines, *blocks], missing=missing)
