"""One look for every figure: sizes, fonts, colours that colour-blind readers tell apart, writing.

Figures are built on `matplotlib.figure.Figure` itself, without pyplot: no global state, no window
system. DejaVu Sans ships inside matplotlib, so a page looks the same on every machine, and text is
embedded as TrueType (editable, searchable). Colours: Okabe and Ito (2008), "Color universal design".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from expander_sae.masks.supports import described
from expander_sae.storage.files import atomic_path

COLUMN_WIDTH = 3.4
PAGE_WIDTH = 7.2
"""Widths in inches of one and of two columns of a paper."""

SMALL, NORMAL, LARGE = 6.5, 7.5, 9.5
"""Font sizes in points; nothing in a figure is smaller than SMALL."""

INK, MUTED, FAINT = "#1a1a1a", "#5f5f5f", "#d9d9d9"

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"

_PALETTE = {
    "blue": BLUE, "vermillion": VERMILLION, "green": GREEN, "orange": ORANGE, "purple": PURPLE, "sky": SKY,
    "yellow": YELLOW, "black": BLACK, "muted": MUTED,
}  # fmt: skip
"""The colours that masks/supports.py names."""

PNG_DPI = 200

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": NORMAL,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": NORMAL,
    "axes.linewidth": 0.6,
    "axes.titlesize": NORMAL,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.hinting": "no_hinting",  # the same line breaks at every resolution
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Look:
    """How one series is drawn: the same colour and marker in every figure."""

    colour: str
    marker: str
    line: str = "-"
    width: float = 0.8
    size: float = 4.4


_SPARE = (
    Look(SKY, "d", ":", size=5.0),
    Look("#8C564B", "8", ":", size=5.0),
    Look("#7F7F00", "H", ":", size=5.0),
)

STEPS = (
    Look("#440154", "o", "-", 1.1, 4.6),
    Look("#31688E", "s", "--", 1.1, 4.2),
    Look("#1F9E89", "^", "-", 1.1, 4.8),
    Look("#7AB82D", "D", "--", 1.1, 4.0),
    Look("#D9A400", "v", "-", 1.1, 4.8),
    Look("#8C564B", "P", "--", 1.1, 4.8),
)
"""Looks of an ordered series, such as the d of a grid: dark to light, each with its own marker."""

_FILLS = {"tied": "full", "warm_tied": "none", "independent": "left"}


def marker_style(style: Look, encoder: str) -> dict[str, Any]:
    """Keywords of `Axes.plot` for a marker: filled for a tied encoder, hollow for a warm-started
    one of its own, half filled for a randomly started one."""
    full = _FILLS.get(encoder, "full") == "full"
    return {
        "marker": style.marker,
        "ms": style.size,
        "mfc": "white" if _FILLS.get(encoder) == "none" else style.colour,
        "mec": "white" if full else style.colour,
        "mew": 0.5 if full else 1.0,
        "fillstyle": "left" if _FILLS.get(encoder) == "left" else "full",
        "markerfacecoloralt": "white",
    }


Looks = Callable[[str, str], Look]
"""(support, inference) → look."""


def looks_for(supports: Iterable[str], by_pursuit: bool = False) -> Looks:
    """The looks of the series of a table; supports without one of their own get spare ones in turn.

    On a page where all is decoded by one pursuit (`by_pursuit`) supports keep the looks of the encoder.
    """
    newcomers = sorted({name for name in supports if not described(name).look} - {"none"})

    def look(support: str, inference: str) -> Look:
        known = described(support)
        own = known.look if by_pursuit or inference == "encoder" else known.pursued
        if own is None:
            return _SPARE[newcomers.index(support) % len(_SPARE) if support in newcomers else 0]
        colour, marker, line, width, size = own
        return Look(_PALETTE.get(colour, colour), marker, line, width, size)

    return look


def step_look(position: int) -> Look:
    """The look of a place in an ordered series."""
    return STEPS[position % len(STEPS)]


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings for the block, starting from its defaults and not the user's file."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches."""
    figure = Figure(figsize=(width, height), dpi=PNG_DPI)
    FigureCanvasAgg(figure)
    return figure


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of one line of plain text at `size` points."""
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    return float(TextToPath().get_text_width_height_descent(text, font, False)[0]) / 72


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Lines of `text` that are at most `width` inches wide at `size` points (a long word stands alone)."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size, weight) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines


def write_pages(figures: Sequence[Figure], out_pdf: str | Path, out_png: str | Path) -> None:
    """All figures as pages of one PDF, the first also as PNG at 200 dpi; both atomic and byte-stable."""
    with atomic_path(out_pdf) as path, PdfPages(path, metadata={"CreationDate": None}) as pages:
        for figure in figures:
            figure.savefig(pages, format="pdf")
    with atomic_path(out_png) as path:
        figures[0].savefig(path, format="png", dpi=PNG_DPI)
