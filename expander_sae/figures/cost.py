"""What dictionaries take: bytes on disk, and milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import by_place
from expander_sae.figures.plots import category_axis, label_room, mark_key
from expander_sae.figures.style import BLACK, BLUE, GREEN, MUTED, ORANGE, PURPLE, SKY, VERMILLION
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from expander_sae.study.run import Cell

PARTS = {
    "storage_values_bytes": ("decoder values", BLUE, "o"),
    "storage_values_rows_bytes": ("values and explicit row indices", VERMILLION, "^"),
    "storage_encoder_bytes": ("encoder and biases", GREEN, "s"),
    "storage_mask_recipe_bytes": ("recipe that regenerates the rows", ORANGE, "D"),
    "storage_total_bytes": ("weights file: values, encoder, biases, recipe", BLACK, "|"),
}


def dictionaries(view: View) -> list[Cell]:
    """The dictionaries of a view: expanders by d, then dense ones by number of features."""
    sparse = view.matching(encoder="tied", support="expander")
    dense = view.matching(support="dense")
    return [*sorted(sparse, key=lambda one: one.d), *sorted(dense, key=lambda one: (one.n, one.encoder))]


def dictionary_name(cell: Cell) -> str:
    """``expander d=7`` or ``dense n=240, own encoder``."""
    if cell.support != "dense":
        return f"{cell.support.replace('_', ' ')} d={cell.d}"
    return f"dense n={cell.n}" + ("" if cell.encoder == "tied" else ", own encoder")


@by_place
def storage(view: View) -> Sheet:
    """Bytes of each part of a dictionary."""
    title = "Storage: what each part of a dictionary takes"
    names, found, precisions = [], [], set()
    for cell in dictionaries(view):
        values = {part: view.index.estimate(cell, part, "none", "none").mean for part in PARTS}
        if not math.isnan(values["storage_values_bytes"]):
            precisions.add(cell.precision)
            names.append(dictionary_name(cell))
            found.append(values)
    if not names:
        return Sheet(title, str(view), missing=["storage of the dictionaries"])

    def draw(axes: Axes) -> None:
        category_axis(axes, names)
        axes.set_xscale("log")
        for place, values in enumerate(found):
            shown = [value for value in values.values() if value > 0]
            axes.plot([min(shown), max(shown)], [place, place], color="#D9D9D9", lw=1.2, zorder=1)
            for part, value in values.items():
                _, colour, marker = PARTS[part]
                if value > 0:
                    axes.plot([value], [place], ls="none", marker=marker, color=colour, mec=colour,
                              ms=9 if marker == "|" else 4.6, mew=1.6 if marker == "|" else 0.4,
                              zorder=3)  # fmt: skip
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _bytes(value)))

    panel = Panel("", draw, "bytes (log)", height=0.22 * len(names) + 0.4, left=label_room(names))
    legend = [mark_key(label, marker=marker, color=colour, mec=colour)
              for label, colour, marker in PARTS.values()]  # fmt: skip
    return Sheet(title, str(view), [panel], legend, [f"Values are {precision_text(precisions)}."])


def precision_text(precisions: Iterable[str]) -> str:
    """``int8``, or all that occur."""
    return " or ".join(sorted(one.replace("_", " ") for one in precisions))


def _bytes(value: float) -> str:
    for size, unit in ((1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g} B"


def speed(results: Results) -> list[Sheet]:
    """Recorded benchmarks: one sheet for each file and device, a panel for each task."""
    title = "Speed"
    rows = results.benchmarks
    if rows.empty:
        return [Sheet(title, missing=["recorded benchmarks (benchmarks/results/*.json)"])]
    return [
        _speed(f"{title}: {file}", part)
        for file, part in sorted(rows.groupby("file"), key=lambda pair: (-len(pair[1]), pair[0]))
    ]


def _speed(title: str, rows: pd.DataFrame) -> Sheet:
    colours = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, "#8C564B", "#7F7F00", MUTED)
    variants = sorted(rows["variant"].unique())
    looks = {name: (colours[i % len(colours)], "os^DPXvd*<>"[i % 11]) for i, name in enumerate(variants)}
    panels = []
    for task, part in rows.groupby("task", sort=True):
        shapes = part[["m", "n", "d", "k", "B", "dtype", "threads"]].drop_duplicates()
        varying = [column for column in shapes.columns if shapes[column].nunique(dropna=False) > 1]
        labels = {
            tuple(shape): ", ".join(f"{c}={_plain(v)}" for c, v in zip(shapes.columns, shape, strict=True)
                                    if c in varying) or "one shape"
            for shape in shapes.itertuples(index=False, name=None)
        }  # fmt: skip
        panels.append(Panel(str(task), _speed_rows(part, list(shapes.columns), labels, looks),
                            height=0.17 * len(labels) + 0.35,
                            left=label_room(labels.values())))  # fmt: skip
    legend = [mark_key(str(name), marker=marker, color=colour, mec=colour)
              for name, (colour, marker) in looks.items()]  # fmt: skip
    devices = ", ".join(sorted({str(name) for name in rows["device"].dropna()}))
    fixed = ", ".join(f"{c} = {_plain(rows[c].iloc[0])}" for c in ("m", "n", "k", "dtype", "threads")
                      if rows[c].nunique(dropna=False) == 1)  # fmt: skip
    return Sheet(title, f"{devices}; {fixed}" if fixed else devices, panels, legend)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _speed_rows(
    part: pd.DataFrame,
    columns: list[str],
    labels: dict[tuple[Any, ...], str],
    looks: dict[str, tuple[str, str]],
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        category_axis(axes, list(labels.values()))
        # From the right edge to the left: long names of shapes leave a panel narrower than these words.
        axes.set_xlabel("milliseconds: median and quartiles", loc="right")
        wide = part["ms_median"].max() > 3 * part["ms_median"].min()
        if wide:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0), numticks=8))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        places = {shape: place for place, shape in enumerate(labels)}
        for row in part.to_dict("records"):
            y = places[tuple(row[column] for column in columns)]
            colour, marker = looks[row["variant"]]
            low, high = row.get("ms_q25"), row.get("ms_q75")
            if low and high:
                axes.plot([low, high], [y, y], color=colour, lw=1.0, solid_capstyle="butt")
            axes.plot([row["ms_median"]], [y], ls="none", marker=marker, ms=4.4, color=colour, mec="white",
                      mew=0.4, zorder=4)  # fmt: skip
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))

    return draw
