"""A table that is written as CSV (numbers), Markdown and LaTeX (numbers with their intervals)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from expander_sae.measurements.estimate import Estimate
from expander_sae.storage.files import atomic_path

DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: in the CSV.
        label: in what people read.
        digits: after the point, for numbers and estimates.
        kind: ``data`` is in the CSV only, for programs; ``prose`` is not in the CSV, which has its parts; a
            ``place`` is said once above the table where all rows agree.
    """

    name: str
    label: str
    digits: int = 3
    kind: Literal["value", "data", "prose", "place"] = "value"


@dataclass(frozen=True)
class Table:
    """Rows of values by column name: an `Estimate` (mean over seeds), a number, a text, or None.

    Args:
        caption: what a reader must know.
        notes: what was left out, and why.
    """

    name: str
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def read(self) -> list[Column]:
        """The columns that people read."""
        return [
            column for column in self.columns
            if column.kind != "data" and column.name not in self._shared
        ]  # fmt: skip

    @property
    def about(self) -> str:
        """The caption, after what all rows share."""
        shared = ", ".join(
            f"{column.label} {shown(self.rows[0].get(column.name))}"
            for column in self.columns if column.name in self._shared
        )  # fmt: skip
        return f"All rows: {shared}. {self.caption}" if shared else self.caption

    @property
    def _shared(self) -> set[str]:
        """Places that are the same in every row."""
        places = [column.name for column in self.columns if column.kind == "place"]
        return {name for name in places if len({row.get(name) for row in self.rows}) == 1}


def shown(value: Any, digits: int = 3) -> str:
    """A value as people read it: ``0.532 ± 0.004``, ``28,672``, ``–`` where nothing was measured."""
    if isinstance(value, Estimate):
        if not value:
            return "diverged" if value.diverged else DASH
        text = _number(value.mean, digits)
        return f"{text} ± {_half(value.half, digits)}" if math.isfinite(value.half) else text
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else _number(value, digits)


def _number(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def _half(value: float, digits: int) -> str:
    """Half an interval; one that would round to nothing has its first digit instead: seeds do differ."""
    if value == 0 or round(value, digits) > 0:
        return _number(value, digits)
    return f"{value:.{-math.floor(math.log10(value))}f}"


def to_csv(table: Table) -> str:
    """Full numbers. An estimate is three columns: the mean, half its 95 % interval and its seeds."""
    estimated = {
        column.name
        for column in table.columns
        if any(isinstance(row.get(column.name), Estimate) for row in table.rows)
    }
    header: list[str] = []
    columns = [column for column in table.columns if column.kind != "prose"]
    for column in columns:
        header.append(column.name)
        header += [f"{column.name}_half", f"{column.name}_seeds"] if column.name in estimated else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for column in columns:
            value = row.get(column.name)
            if column.name in estimated:
                estimate = value if isinstance(value, Estimate) else Estimate()
                seeds = str(len(estimate.values)) if estimate else ""
                line += [_full(estimate.mean), _full(estimate.half), seeds]
            else:
                line.append(_full(value) if isinstance(value, float) else "" if value is None else str(value))
        writer.writerow(line)
    return stream.getvalue()


def _full(value: float) -> str:
    """Six significant digits, so that the last bits of a sum do not change the file."""
    return f"{value:.6g}" if math.isfinite(value) else ""


def to_markdown(table: Table) -> str:
    """A heading, the caption, a pipe table and the notes."""
    lines = [f"# {table.title}", "", table.about, ""]
    if table.rows:
        lines.append("| " + " | ".join(_cell(column.label) for column in table.read) + " |")
        lines.append("|" + "---|" * len(table.read))
        lines += [
            "| " + " | ".join(_cell(shown(row.get(c.name), c.digits)) for c in table.read) + " |"
            for row in table.rows
        ]
    else:
        lines.append("Nothing measured.")
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$",
    "–": "--", "—": "---", "′": r"$'$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "σ": r"$\sigma$",
    "ε": r"$\varepsilon$", "β": r"$\beta$", "μ": r"$\mu$", "Γ": r"$\Gamma$", "Δ": r"$\Delta$", "²": r"$^2$",
    "₁": r"$_1$", "⌊": r"$\lfloor$", "⌋": r"$\rfloor$", "⌈": r"$\lceil$", "⌉": r"$\rceil$", "·": r"$\cdot$",
    "∞": r"$\infty$", "“": "``", "”": "''", "…": r"\dots{}", "→": r"$\to$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "√": r"$\surd$", "‖": r"$\|$", "ĥ": r"$\hat h$", "½": r"$\frac12$", "\n": " ",
    "§": r"\S{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """The text with every character that LaTeX reads as a command, and every symbol, spelled out."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def to_latex(table: Table) -> str:
    """A `table` with `tabular` and \\hline: needs no package."""
    spec = "l" * len(table.read)
    caption = latex_text(f"{table.title}. {table.about}")
    head = " & ".join(latex_text(column.label) for column in table.read) + r" \\"
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{{spec}}}", r"\hline", head, r"\hline"]
    lines += [
        " & ".join(latex_text(shown(row.get(c.name), c.digits)) for c in table.read) + r" \\"
        for row in table.rows
    ]
    lines += [r"\hline", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {latex_text(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


FORMATS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def write(table: Table, folder: str | Path) -> list[Path]:
    """Write {name}.csv, .md and .tex, each whole or not at all."""
    written = []
    for ending, render in FORMATS.items():
        path = Path(folder) / f"{table.name}.{ending}"
        with atomic_path(path) as temporary:
            temporary.write_text(render(table), encoding="utf-8")
        written.append(path)
    return written
