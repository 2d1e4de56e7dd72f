"""One page about any autoencoders: what each takes to store, how well it rebuilds, what its features are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from expander_sae.errors import UserError
from expander_sae.evaluation.compared import FREQUENT, Measured
from expander_sae.figures.layout import Panel, Sheet, compose
from expander_sae.figures.plots import mark_key
from expander_sae.figures.style import PNG_DPI, house_style, step_look
from expander_sae.pursuit.inference import inferences
from expander_sae.storage.files import atomic_path

PANELS = (
    ("relative_error", "Fidelity: relative error ‖h − ĥ‖/‖h‖, lower is better"),
    ("ce_recovered", "Fidelity: cross-entropy recovered, higher is better"),
    ("explained_variance", "Fidelity: explained variance, higher is better"),
    ("dead_fraction", "Features that never fire here"),
    ("frequent_fraction", f"Features that fire on more than {FREQUENT:.0%} of the tokens"),
    ("token_entropy", "Entropy of the tokens that a feature fires on, bits"),
)
"""(metric, title): the metrics that are drawn, where they were measured."""
SUFFIXES = (".pdf", ".png")


def bytes_shown(value: float) -> str:
    """``1.2 MB``."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def sheet(measured: Sequence[Measured], subtitle: str) -> Sheet:
    """Each metric over the bytes of the weights: filled by the encoder, hollow by a pursuit."""
    metrics = {metric for one in measured for values in one.metrics.values() for metric in values}
    panels = [
        Panel(title, partial(_draw, measured=measured, metric=metric), "bytes of the weights (log)")
        for metric, title in PANELS
        if metric in metrics
    ]
    legend = [
        mark_key(
            f"{one.name}: {bytes_shown(one.bytes)}, n = {one.n:,}, k = {one.k:,}",
            marker=step_look(place).marker, color=step_look(place).colour,
        )
        for place, one in enumerate(measured)
    ]  # fmt: skip
    names = list(dict.fromkeys(name for one in measured for name in one.metrics))
    notes = [f"Filled: {_label(names[0])}." + "".join(f" Hollow: {_label(name)}." for name in names[1:])]
    notes.append("Of features that fire, the codes of the encoder are counted.")
    if any(one.encoded_share < 1 for one in measured):
        shares = ", ".join(f"{one.name} {one.encoded_share:.2%}" for one in measured)
        notes.append(f"Each is measured on the tokens that it encodes: {shares}.")
    return Sheet("Autoencoders by what they take to store", subtitle, panels, legend, notes)


def _label(name: str) -> str:
    return inferences(name).label or name


def _draw(axes: Axes, measured: Sequence[Measured], metric: str) -> None:
    axes.set_xscale("log")
    for place, one in enumerate(measured):
        look = step_look(place)
        for order, values in enumerate(one.metrics.values()):
            if math.isfinite(value := values.get(metric, math.nan)):
                face = look.colour if order == 0 else "none"
                axes.plot([one.bytes], [value], ls="none", marker=look.marker, ms=look.size + 1,
                          mfc=face, mec=look.colour, mew=0.9)  # fmt: skip
    axes.margins(x=0.15, y=0.12)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_shown(value)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def draw(measured: Sequence[Measured], subtitle: str, out: Path) -> None:
    """Write the page as .pdf or .png; equal numbers give equal bytes."""
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: suffix {out.suffix!r}, expected {' or '.join(SUFFIXES)}")
    with house_style(), atomic_path(out) as path:
        figure = compose(sheet(measured, subtitle))
        kind = out.suffix[1:]
        options = {"metadata": {"CreationDate": None}} if kind == "pdf" else {"dpi": PNG_DPI}
        figure.savefig(path, format=kind, **options)
