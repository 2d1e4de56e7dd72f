"""Pursuits on trained, frozen decoders."""

from __future__ import annotations

import re

from expander_sae.figures.fidelity import ERROR, by_place, published_key
from expander_sae.figures.layout import Line, Panel, Plot, Sheet, keys, seeds_note
from expander_sae.figures.sources import Sources
from expander_sae.figures.style import BLUE, GREEN, PURPLE, VERMILLION, Look, step_look
from expander_sae.measurements.cells import Cell, View
from expander_sae.measurements.published import Published

METHODS = {
    "encoder": ("trained encoder", Look(BLUE, "o", "-", 1.2, 5.0)),
    "omp": ("OMP", Look(VERMILLION, "^", "-", 1.2, 5.4)),
    "niht": ("NIHT", Look(GREEN, "s", "--", 1.0, 4.4)),
    "cosamp": ("CoSaMP", Look(PURPLE, "D", "--", 1.0, 4.2)),
}
_BLOCK = re.compile(r"block_omp_(\d+)$")


def pursuits(sources: Sources) -> list[Sheet]:
    """Relative error of every pursuit over d, and of block OMP over the block's size."""
    return by_place(sources, _pursuits)


def pursuit_cell(view: View, inference: str, d: int, support: str = "expander") -> Cell:
    """Relative error of a pursuit, all on the same tokens (split `pursuit`)."""
    return view.cell(ERROR, support, d, inference=inference, split="pursuit")


def block_sizes(sources: Sources) -> list[int]:
    """The L of block OMP that the table has."""
    found = (_BLOCK.match(str(name)) for name in sources.metrics["inference"].unique())
    return sorted(int(match.group(1)) for match in found if match)


def _pursuits(sources: Sources, view: View) -> Sheet:
    title = "Decoding trained dictionaries by pursuit"
    published = Published(sources.published)
    ds = view.ds()
    lines, beside = [], False
    for inference, (label, style) in METHODS.items():
        lines.append(Line(label, style, {float(d): pursuit_cell(view, inference, d) for d in ds}))
        hollow = {float(d): published.cell(view, ERROR, "expander", d, inference=inference) for d in ds}
        lines.append(Line("", style, hollow, joined=False, hollow=True))
        beside = beside or any(hollow.values())
    sizes = block_sizes(sources)
    blocks = [
        Line(f"block OMP, d = {d}", step_look(place),
             {float(size): pursuit_cell(view, f"block_omp_{size}", d) for size in sizes})
        for place, d in enumerate(ds)
    ]  # fmt: skip
    missing = [label for (label, _), line in zip(METHODS.values(), lines[::2], strict=True) if not line.kept]
    if not any(line.kept for line in blocks):
        missing.append("block OMP")
    if not any(line.kept for line in [*blocks, *(line for line in lines if not line.hollow)]):
        return Sheet(title, str(view), missing=["pursuits on the tokens of the split “pursuit”"])
    panels = [Panel("all methods", Plot(lines), "d, nonzeros of a column (log)", "relative error ↓")]
    if any(line.kept for line in blocks):
        panels.append(Panel("block OMP: L columns a round", Plot(blocks), "L (log); L = 1 is OMP",
                            "relative error ↓"))  # fmt: skip
    every = [cell for line in [*lines, *blocks] if not line.hollow for cell in line.cells.values()]
    legend = [*keys(lines), *keys(blocks), *published_key(beside)]
    return Sheet(title, str(view), panels, legend, seeds_note(every), missing)
