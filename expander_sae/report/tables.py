"""The tables of the report, from the same results as the figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expander_sae.figures.cost import PARTS, dictionaries, dictionary_name, precision_text
from expander_sae.figures.decoding import METHODS, block_sizes, pursuit_cell
from expander_sae.figures.fidelity import budget_cell, gain
from expander_sae.figures.place_sheets import CE, ERROR
from expander_sae.masks.supports import described
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from expander_sae.report.choice_tables import choice_table, frontier_table
from expander_sae.report.formats import Column, Table, write
from expander_sae.report.published_comparison import published_table, synthetic_table
from expander_sae.report.table_names import TABLES
from expander_sae.study.run import Cell

_SEEDS = (
    "Means over seeds ± half the 95 % interval over seeds, these documents given; a number without ± has one "
    "seed."
)
_WHERE = [Column("model", "model", kind="place"), Column("layer", "layer", kind="place")]
_DICTIONARY = [
    Column("support", "support"),
    Column("encoder", "encoder"),
    Column("n", "n"),
    Column("d", "d"),
]


def all_tables(results: Results) -> list[Table]:
    """Every table, in the order of `TABLES`."""
    return [_MAKERS[name](results) for name in TABLES]


def write_tables(results: Results, folder: str | Path) -> list[Path]:
    """Write every table as CSV, Markdown and LaTeX."""
    return [path for table in all_tables(results) for path in write(table, folder)]


def _where(view: View) -> dict[str, Any]:
    return {"model": view.place.model, "layer": view.place.layer, "recipe": view.place.recipe}


def _fidelity(view: View, cell: Cell) -> dict[str, Any]:
    """What most tables say of a dictionary at its place: which it is, and how much it keeps."""
    own = {name: getattr(cell, name) for name in ("support", "encoder", "n", "d", "k")}
    return {
        **_where(view), **own, "ce_recovered": view.index.estimate(cell, CE),
        "relative_error": view.index.estimate(cell, ERROR),
        "relative_error_omp": view.index.estimate(cell, ERROR, "omp"),
    }  # fmt: skip


def headline(results: Results) -> Table:
    """Every dictionary at the main k and budget."""
    columns = [
        *_WHERE, *_DICTIONARY, Column("k", "k"), Column("decoder_values", "decoder values", 0),
        Column("compression", "fewer", 1), Column("relative_error", "rel. error"),
        Column("relative_error_omp", "rel. error, OMP"), Column("ce_recovered", "CE recovered"),
        Column("ce_recovered_omp", "CE rec., OMP"), Column("ce_recovered_zero_kept", "CE rec., kept tokens"),
        Column("ce_recovered_mean", "CE rec., mean"), Column("dead", "dead, %", 2),
    ]  # fmt: skip
    rows = []
    for view in results.views:
        others = [
            cell
            for cell in view.matching(n=view.place.n, encoder="tied")
            if cell.support not in ("expander", "dense") and not described(cell.support).counts
        ]
        beside = [*sorted(others, key=lambda one: (one.support, one.d)), *view.imports()]
        for cell in [*dictionaries(view), *beside]:
            values = cell.d * cell.n
            rows.append({
                **_fidelity(view, cell), "decoder_values": values,
                "compression": view.place.m * view.place.n / values,
                "ce_recovered_omp": view.index.estimate(cell, CE, "omp"),
                "ce_recovered_zero_kept": view.index.estimate(cell, "ce_recovered_zero_kept"),
                "ce_recovered_mean": view.index.estimate(cell, "ce_recovered_mean"),
                "dead": view.index.estimate(cell, "dead_fraction").scaled(100),
            })  # fmt: skip
    caption = f"Every dictionary at its place's main k and training budget. {_SEEDS}"
    if any(view.imports() for view in results.views):
        caption += " Imported ones have a k and a training of their own."
    return Table("headline", "Headline figures", caption, columns, rows, _same_model_note(results))


def _same_model_note(results: Results) -> list[str]:
    other = [str(view.place) for view in results.views if not view.has_published]
    if not other:
        return ["The published values of the same cells stand in the table “Ours beside the published”."]
    return [
        "Other models than the paper's, so no published number is comparable: "
        + "; ".join(sorted(other))
        + "."
    ]


def grid(results: Results) -> Table:
    """Expanders and the dense SAE over d and k."""
    columns = [
        *_WHERE, *_DICTIONARY, Column("k", "k"), Column("ce_recovered", "CE recovered"),
        Column("relative_error", "rel. error"), Column("relative_error_omp", "rel. error, OMP"),
        Column("omp_gain", "OMP gain"), Column("explained_variance", "explained variance"),
    ]  # fmt: skip
    rows = []
    for view in results.views:
        cells = [cell for cell in view.matching(k=None, encoder="tied", n=view.place.n)
                 if cell.support in ("expander", "dense")]  # fmt: skip
        rows += [
            {
                **_fidelity(view, cell), "omp_gain": gain(view, cell.support, cell.d, cell.k),
                "explained_variance": view.index.estimate(cell, "explained_variance"),
            }
            for cell in sorted(cells, key=lambda one: (one.support == "dense", one.d, one.k))
        ]  # fmt: skip
    caption = f"The grid over d and k. OMP gain: 1 − error(OMP)/error(encoder), seed by seed. {_SEEDS}"
    return Table("grid", "Grid over d and k", caption, columns, rows)


def controls(results: Results) -> Table:
    """Every support beside the expander of the same d and seeds."""
    columns = [
        *_WHERE, Column("support", "support"), Column("d", "d"), Column("k", "k"),
        Column("ce_recovered", "CE recovered"), Column("ce_difference", "Δ CE rec. to expander", 4),
        Column("relative_error", "rel. error"), Column("error_difference", "Δ rel. error", 4),
    ]  # fmt: skip
    rows = []
    for view in results.views:
        for support in view.supports():
            for d in view.ds(support):
                ce, error = view.estimate(CE, support, d), view.estimate(ERROR, support, d)
                same = support == "expander"
                rows.append({
                    **_where(view), "support": support, "d": d, "k": view.k, "ce_recovered": ce,
                    "ce_difference": None if same else ce.less(view.estimate(CE, "expander", d)),
                    "relative_error": error,
                    "error_difference": None if same else error.less(view.estimate(ERROR, "expander", d)),
                })  # fmt: skip
    caption = (
        "Supports of the same number of values, and the difference to the expander on the same seeds. "
        f"Positive Δ CE recovered and negative Δ relative error favour the other support. {_SEEDS}"
    )
    return Table("controls", "Support diversity: controls and doses", caption, columns, rows)


_ROLES = (
    ("expander", "expander"),
    ("decoder", "dense, equal decoder values"),
    ("total", "dense with its own encoder, equal values in all"),
    ("compute", "dense, all n features, equal training multiply-adds"),
)


def budgets(results: Results) -> Table:
    """The expander and the dense SAEs that match it."""
    columns = [
        *_WHERE, Column("d", "d of the expander"), Column("role", "dictionary"),
        Column("ce_recovered", "CE recovered"), Column("ce_recovered_omp", "CE rec., OMP"),
        Column("relative_error", "rel. error"), Column("relative_error_omp", "rel. error, OMP"),
    ]  # fmt: skip
    rows = []
    for view in results.views:
        for d in view.ds():
            for role, label in _ROLES:
                cells = {
                    name: budget_cell(view, role, metric, d, inference)
                    for name, metric, inference in (
                        ("ce_recovered", CE, "encoder"), ("ce_recovered_omp", CE, "omp"),
                        ("relative_error", ERROR, "encoder"), ("relative_error_omp", ERROR, "omp"),
                    )
                }  # fmt: skip
                if any(cells.values()):
                    rows.append({**_where(view), "d": d, "role": label, **cells})
    caption = (
        f"Dense SAEs matched to an expander by storage, by all values and by training multiply-adds. {_SEEDS}"
    )
    return Table("budgets", "Matched budgets", caption, columns, rows)


def pursuits(results: Results) -> Table:
    """Relative error of every pursuit on the tokens of the split `pursuit`."""
    sizes = block_sizes(results.index)
    methods = {**{name: label for name, (label, _) in METHODS.items()},
               **{f"block_omp_{size}": f"block OMP, L={size}" for size in sizes}}  # fmt: skip
    columns = [*_WHERE, Column("support", "support"), Column("d", "d"), Column("k", "k"),
               *(Column(name, label) for name, label in methods.items())]  # fmt: skip
    rows = []
    for view in results.views:
        for support in [*view.supports(), "dense"]:
            for d in view.ds(support):
                cells = {name: pursuit_cell(view, name, d, support) for name in methods}
                if any(cells.values()):
                    rows.append({**_where(view), "support": support, "d": d, "k": view.k, **cells})
    caption = f"Relative error on the same tokens and frozen decoders. {_SEEDS}"
    return Table("pursuits", "Pursuits", caption, columns, rows)


def encoders(results: Results) -> Table:
    """Every encoder of the expander and of the dense SAE."""
    columns = [*_WHERE, *_DICTIONARY, Column("k", "k"), Column("encoder_values", "encoder values", 0),
               Column("ce_recovered", "CE recovered"), Column("relative_error", "rel. error"),
               Column("relative_error_omp", "rel. error, OMP")]  # fmt: skip
    rows = []
    for view in results.views:
        cells = [one for one in view.matching(n=view.place.n) if one.support in ("expander", "dense")]
        if len({cell.encoder for cell in cells}) < 2:
            continue
        rows += [
            {
                **_fidelity(view, cell),
                "encoder_values": view.index.estimate(cell, "encoder_values", "none", "none").mean,
            }
            for cell in sorted(cells, key=lambda one: (one.support == "dense", one.d, one.encoder))
        ]
    caption = f"The same decoder support read by other encoders. {_SEEDS}"
    return Table("encoders", "Encoders", caption, columns, rows)


def storage(results: Results) -> Table:
    """Bytes of the parts of each dictionary."""
    columns = [*_WHERE, Column("dictionary", "dictionary"),
               *(Column(part, label, 0) for part, (label, _, _) in PARTS.items())]  # fmt: skip
    rows, precisions = [], set()
    for view in results.views:
        for cell in dictionaries(view):
            parts = {part: view.index.estimate(cell, part, "none", "none").mean for part in PARTS}
            if any(math.isfinite(value) for value in parts.values()):
                precisions.add(cell.precision)
                rows.append({**_where(view), "dictionary": dictionary_name(cell), **parts})
    caption = f"Bytes; values are {precision_text(precisions)}." if rows else "Bytes."
    return Table("storage", "Storage", caption, columns, rows)


def claims(results: Results) -> Table:
    """One row a claim and setting."""
    columns = [
        Column("setting", "setting"), Column("id", "claim"), Column("sentence", "claim in words"),
        Column("verdict", "verdict"), Column("points_to", "points to"),
        Column("estimate", "estimate", 4), Column("low", "from", 4), Column("high", "to", 4),
        Column("threshold", "holds if"), Column("seeds", "seeds"), Column("documents", "documents"),
        Column("reason", "reason"),
    ]  # fmt: skip
    rows = []
    for record in results.claims:
        low, high = record["interval_deciding"] or (None, None)
        rows.append(
            {**{column.name: record.get(column.name) for column in columns}, "low": low, "high": high}
        )
    caption = (
        "docs/claims.md explains the verdicts, and what was known when a claim was written down. Of several "
        "comparisons, the numbers are those of the one on which the verdict hangs, the interval the one that "
        "decides it."
    )
    return Table("claims", "Claims", caption, columns, rows)


_MAKERS: dict[str, Callable[[Results], Table]] = {
    "choice": choice_table,
    "headline": headline,
    "grid": grid,
    "controls": controls,
    "budgets": budgets,
    "pursuits": pursuits,
    "encoders": encoders,
    "storage": storage,
    "frontier": frontier_table,
    "synthetic": synthetic_table,
    "published": published_table,
    "claims": claims,
}
