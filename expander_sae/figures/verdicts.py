"""The claims: an overview with one row each, and a page for each with all of its comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.plots import category_axis, label_room, mark_key, width_of
from expander_sae.figures.style import BLUE, FAINT, INK, MUTED, ORANGE, SMALL, VERMILLION
from expander_sae.measurements.results import Results

VERDICTS = {
    "holds": (BLUE, "o"),
    "fails": (VERMILLION, "X"),
    "inconclusive": (ORANGE, "D"),
    "not run": (MUTED, "_"),
}
"""Colour and marker of each verdict."""


def claims(results: Results) -> list[Sheet]:
    """The overview of each setting, then a page for each claim that has numbers."""
    if not results.claims:
        return [Sheet("Claims", missing=["verdicts (results/claims.json)"])]
    pages = [overview(records, name) for name, records in by_setting(results.claims).items()]
    return [*pages, *(one_claim(r) for r in results.claims if r["estimate"] is not None)]


def by_setting(claims: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Setting → its claims: what the reader came for before settings where nothing was run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in claims:
        found.setdefault(record["setting"], []).append(record)
    return dict(sorted(found.items(), key=lambda pair: -decided(pair[1])))


def decided(claims: Sequence[dict[str, Any]]) -> int:
    """How many claims were run."""
    return sum(record["verdict"] != "not run" for record in claims)


def overview(records: Sequence[dict[str, Any]], setting: str) -> Sheet:
    """One row a claim: its margin to the threshold in half-widths of the interval, and the verdict."""
    shown = [record for record in records if record["verdict"] != "not run"]
    idle = [record["id"] for record in records if record["verdict"] == "not run"]
    counts = {name: sum(r["verdict"] == name for r in records) for name in VERDICTS}
    subtitle = f"Setting {setting}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    if not shown:
        return Sheet("Claims", subtitle, missing=idle)

    panel = Panel(
        "",
        partial(_draw_overview, shown),
        height=0.2 * len(shown) + 0.35,
        left=label_room(record["id"] for record in shown),
        wide=True,
    )
    legend = [mark_key(name, marker=marker, color=colour, mec=colour)
              for name, (colour, marker) in VERDICTS.items() if name != "not run"]  # fmt: skip
    notes = [
        "Right: the interval against the nearest threshold (line), drawn in units of its own width, so that "
        "claims of any unit stand side by side; grey marks the side on which the claim is true."
    ]
    return Sheet("Claims: what the paper says and what the tables say", subtitle, [panel], legend, notes,
                 idle, legend_columns=3)  # fmt: skip


def _draw_overview(records: Sequence[dict[str, Any]], axes: Axes) -> None:
    category_axis(axes, [record["id"] for record in records])
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.grid(False)
    # In one column there is room for the mark and the interval only.
    narrow = width_of(axes) < 3
    for place, record in enumerate(records):
        colour, marker = VERDICTS[record["verdict"]]
        at = 0.04 if narrow else 0.02
        axes.plot([at], [place], ls="none", marker=marker, color=colour, ms=5.5, mec="white", mew=0.5)
        if narrow:
            _strip(axes, record, place, 0.55, 0.43)
            continue
        said = (record["verdict"], estimate_text(record), _region(record["threshold"]))
        for x, text in zip((0.05, 0.225, 0.515), said, strict=True):
            axes.text(x, place, text, va="center", size=SMALL, color=INK)
        _strip(axes, record, place, 0.87, 0.115)
    if not narrow:
        for x, text in ((0.05, "verdict"), (0.225, "estimate [interval]"), (0.515, "holds if"),
                        (0.87, "against the threshold")):  # fmt: skip
            axes.text(x, -0.95, text, size=SMALL, color=MUTED, ha="center" if x > 0.8 else "left")


def _strip(axes: Axes, record: dict[str, Any], place: int, centre: float, reach: float) -> None:
    """The interval of a claim against its nearest threshold, which stands at x = `centre`."""
    interval, bounds = record["interval_deciding"], thresholds(record["threshold"])
    if not interval or interval[0] is None or not bounds:
        return
    estimate, (low, high) = record["estimate"], interval
    kind, bound = min(bounds, key=lambda pair: abs(pair[1] - estimate))
    side = reach if kind in ("above", "at least") else -reach
    axes.fill_between([centre, centre + side], place - 0.32, place + 0.32, color=FAINT, alpha=0.7, lw=0)
    axes.plot([centre] * 2, [place - 0.38, place + 0.38], color=INK, lw=0.7)
    unit = max(abs(low - bound), abs(high - bound), 1e-12) / (0.92 * reach)
    colour, marker = VERDICTS[record["verdict"]]
    axes.plot([centre + (low - bound) / unit, centre + (high - bound) / unit], [place] * 2, color=colour,
              lw=1.3, solid_capstyle="butt")  # fmt: skip
    axes.plot([centre + (estimate - bound) / unit], [place], ls="none", marker=marker, color=colour, ms=4.2,
              mec="white", mew=0.4, zorder=4)  # fmt: skip


def thresholds(text: str) -> list[tuple[str, float]]:
    """[("at least", 0.15), ("at most", 0.25)] of ``at least 0.15 and at most 0.25``."""
    found = []
    for part in text.split(" and "):
        words, _, number = part.rpartition(" ")
        try:
            found.append((words, float(number)))
        except ValueError:
            continue
    return found


def _region(threshold: str) -> str:
    """The threshold in few words: ``0.15 to 0.25`` where it has two ends."""
    bounds = thresholds(threshold)
    if len(bounds) < 2:
        return threshold.replace("-", "−")
    return " to ".join(f"{bound:g}".replace("-", "−") for _, bound in bounds)


def estimate_text(record: dict[str, Any]) -> str:
    """``0.921 [0.913, 0.929]``: the estimate and the interval that decided; a dash where nothing was run."""
    if record["estimate"] is None:
        return "–"
    text = short_value(record["estimate"])
    interval = record["interval_deciding"]
    if interval and interval[0] is not None and interval[0] != interval[1]:
        text += f" [{short_value(interval[0])}, {short_value(interval[1])}]"
    return text


def short_value(value: float) -> str:
    """Three significant digits, with a true minus sign."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    text = f"{value:.3g}" if size >= 4 or size < -3 else f"{value:.{max(0, 2 - size)}f}"
    return text.replace("-", "−")


def one_claim(record: dict[str, Any]) -> Sheet:
    """All comparisons of a claim: estimate, interval, seeds, and the region where the claim is true."""
    ran = [one for one in record["comparisons"] if one["estimate"] is not None]
    missing = [one["label"] or "its cells" for one in record["comparisons"] if one["estimate"] is None]
    names = [one["label"] or "all" for one in ran]

    def draw(axes: Axes) -> None:
        category_axis(axes, names)
        for place, one in enumerate(ran):
            colour, marker = VERDICTS[one["verdict"]]
            seeds = list((one["spread"] or {}).get("values", {}).values())
            seeds = [value for value in seeds if value is not None]
            axes.plot(seeds, [place + 0.27] * len(seeds), ls="none", marker="o", ms=1.9, color=MUTED, mew=0)
            interval, family = one["interval"], one["interval_family"]
            if family and family[0] is not None:
                axes.plot(family, [place] * 2, color=colour, lw=0.6, solid_capstyle="butt")
            if interval and interval[0] is not None:
                axes.plot(interval, [place] * 2, color=colour, lw=1.2, solid_capstyle="butt")
            axes.plot([one["estimate"]], [place], ls="none", marker=marker, ms=5, color=colour, mec="white",
                      mew=0.5, zorder=4)  # fmt: skip
        low, high = axes.get_xlim()
        bounds = thresholds(record["threshold"])
        low, high = min([low, *(b for _, b in bounds)]), max([high, *(b for _, b in bounds)])
        room = 0.06 * (high - low or 1)
        low, high = low - room, high + room
        least = max([b for kind, b in bounds if kind in ("above", "at least")], default=low)
        most = min([b for kind, b in bounds if kind in ("below", "at most")], default=high)
        axes.axvspan(least, most, color=FAINT, alpha=0.5, lw=0, zorder=0)
        axes.set_xlim(low, high)
        for _, bound in bounds:
            axes.axvline(bound, color=INK, lw=0.8, zorder=1)

    panel = Panel("", draw, record["statistic"] if len(record["statistic"]) < 62 else "statistic",
                  height=0.24 * len(ran) + 0.3, left=min(label_room(names), 1.6))  # fmt: skip
    notes = [f"Statistic: {record['statistic']}. Claim true in the grey region: {record['threshold']}. Bars: "
             f"intervals at {record['level']:.4g}, thin ones at {record['level_family']:.4g} (of all "
             "comparisons together); dots: seeds."]  # fmt: skip
    return Sheet(f"{record['id']}: {record['verdict']}", record["sentence"], [panel] if ran else [],
                 notes=notes, missing=missing)  # fmt: skip
