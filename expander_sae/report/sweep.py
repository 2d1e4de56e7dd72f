"""The table of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from expander_sae.measurements.sweep import MOST_DEAD, Compared
from expander_sae.report.formats import Column, Table

_SHAPE = ("model", "layer", "support", "encoder", "n", "d", "k", "steps")


def sweep_table(found: Sequence[Compared]) -> Table:
    """A row a recipe and cell: its swept values, errors and dead share, and whether it is chosen."""
    swept = list(found[0].settings[0].values)
    inference = list(found[0].settings[0].errors)
    rows = [
        {name: cell.place[name] for name in _SHAPE}
        | dict(setting.values)
        | {f"relative_error_{name}": setting.error(name) for name in inference}
        | {"dead_fraction": setting.dead, "chosen": "yes" if setting is cell.chosen else ""}
        for cell in found
        for setting in cell.settings
    ]
    columns = [Column(name, name.replace("_", " "), 6) for name in (*_SHAPE, *swept)]
    columns += [Column(f"relative_error_{name}", f"relative error, {name}", 4) for name in inference]
    columns += [Column("dead_fraction", "dead", 4), Column("chosen", "chosen")]
    by = found[0].by
    caption = (
        "Relative error on the validation split, mean over seeds. Chosen in each cell is the smallest error "
        f"by {by} among recipes with at most {MOST_DEAD:.0%} dead features and no diverged seed."
    )
    return Table("sweep", "Recipes on the validation split", caption, columns, rows, _notes(found))


def _notes(found: Sequence[Compared]) -> list[str]:
    """Where nothing could be chosen, or the best may lie beyond what was tried."""
    notes = []
    for cell in found:
        where = ", ".join(f"{name} {cell.place[name]}" for name in _SHAPE if name != "model")
        if cell.chosen is None:
            notes.append(f"{where}: nothing is chosen.")
        notes += [f"{where}: the chosen {key} is at an end of those tried." for key in cell.at_an_end]
    return notes
