"""The tables of the page of choices: what to take for a budget, and every mark of the page."""

from __future__ import annotations

from typing import Any

from expander_sae.figures.answer_rows import Row, answers
from expander_sae.figures.answer_words import budget_text
from expander_sae.figures.candidate_costs import machine, microseconds, training_seconds
from expander_sae.figures.candidate_words import Names, size_text
from expander_sae.figures.candidates import CE, ERROR, METRICS, SELECTIVITY, Candidate, candidates
from expander_sae.measurements.pareto import front
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from expander_sae.report.formats import Column, Table

_WHERE = [Column("model", "model"), Column("layer", "layer"), Column("recipe", "recipe", data=True)]
_CELL = [Column(name, name, data=True) for name in
         ("support", "encoder", "n", "d", "k", "train_tokens", "steps", "precision")]  # fmt: skip
_VALUES = [Column(CE, "CE recovered"), Column(ERROR, "rel. error"), Column(SELECTIVITY, "selectivity")]


def choice_table(results: Results) -> Table:
    """For each budget of bytes and each purpose the dictionary to take, and what no training gives."""
    columns = [
        *_WHERE, Column("budget", "if you have"), Column("purpose", "and want"), Column("take", "take"),
        Column("size", "on disk"), Column("inference", "read by"), *_VALUES,
        Column("alike", "not told apart from it, smaller"), Column("untrained", "nobody trained"),
        Column("untrained_size", "its size"), Column("untrained_value", "gives"), 
        Column("verdict", "which is"), Column("microseconds", "μs a token", 0),
        Column("training_seconds", "training, s", 0),
        Column("decides", "decides", data=True), Column("decides_half", "half its interval", data=True),
        Column("bytes", "bytes", data=True), *_CELL,
    ]  # fmt: skip
    rows = []
    for view in results.views:
        every = candidates(view)
        names = Names.of(every, view.place.n)
        rows += [{**_where(view), **_row(row, names)} for row in answers(every)]
    caption = (
        "Of the trained dictionaries that fit a budget of bytes the one with the best mean, of equal ones "
        "the smallest. Beside it the smallest smaller one that is within its 95 % interval, and the best "
        "that nobody trained, read in the same way within the same budget. Times are estimates for one core "
        f"of an {machine().device}, to code a token and to train. Each is chosen by the numbers that "
        "are shown, of the test tokens: the best of several looks a little better than it is, and no "
        "interval has that."
    )
    return Table("choice", "Which dictionary to use", caption, columns, rows)


def _row(row: Row, names: Names) -> dict[str, Any]:
    metric, floor = row.purpose.metric, row.untrained
    found: dict[str, Any] = {
        "budget": budget_text(row.budget), "purpose": row.purpose.words, "decides": metric,
        "take": "nothing fits", "verdict": row.verdict if floor and row.taken else None,
    }  # fmt: skip
    if row.alike:
        found["alike"] = f"{names(row.alike)}, {size_text(row.alike.size)}"
    elif row.taken and not row.told:
        found["alike"] = "one seed: not known"
    if floor:
        found |= {"untrained": names(floor), "untrained_size": size_text(floor.size),
                  "untrained_value": floor.estimates[metric]}  # fmt: skip
    if row.taken:
        found |= _told(row.taken) | {
            "take": names(row.taken), "size": size_text(row.taken.size),
            "decides_half": row.taken.half(metric),
            "microseconds": microseconds(row.taken), "training_seconds": training_seconds(row.taken),
        }  # fmt: skip
    return found


def frontier_table(results: Results) -> Table:
    """Every mark of the page of choices, with its numbers and the fronts that it is on."""
    fronts = [Column(f"front_{metric}", f"best: {column.label}")
              for metric, column in zip(METRICS, _VALUES, strict=True)]  # fmt: skip
    columns = [
        *_WHERE, Column("name", "dictionary"), Column("group", "group"), Column("inference", "read by"),
        Column("bytes", "bytes", 0), *_VALUES, *fronts, *_CELL,
    ]  # fmt: skip
    rows = []
    for view in results.views:
        every = candidates(view)
        names = Names.of(every, view.place.n)
        best = {metric: _members(every, metric) for metric in METRICS}
        rows += [
            {
                **_where(view), **_told(one), "name": names(one), "group": one.group,
                **{f"front_{metric}": "yes" for metric in METRICS if one.key in best[metric]},
            }
            for one in every
        ]  # fmt: skip
    caption = (
        "Every dictionary with its bytes on disk. It is best where none of its group that is read in the "
        "same way is as good in fewer bytes or better in as many. Frozen ones were trained in part."
    )
    if any(row["group"] == "imported" for row in rows):
        caption += " Imported ones have a k and a training of their own, and are on no front."
    return Table("frontier", "Every dictionary over its bytes", caption, columns, rows)


def _members(every: list[Candidate], metric: str) -> set[Any]:
    """Keys of the members of the fronts: trained and not, by each inference; none of what is imported."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for one in every:
        if one.group != "imported":
            groups.setdefault((one.group, one.inference), []).append(one)
    return {option.name for group in groups.values() for option in front(one.option(metric) for one in group)}


def _told(one: Candidate) -> dict[str, Any]:
    own = {column.name: getattr(one.cell, column.name, None) for column in _CELL}
    return {**own, "precision": one.precision, "inference": one.inference, "bytes": one.size, **one.estimates}


def _where(view: View) -> dict[str, Any]:
    return {"model": view.place.model, "layer": view.place.layer, "recipe": view.place.recipe}
