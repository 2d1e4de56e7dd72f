"""The tables of the page of choices: what to take for a budget, and every mark of the page."""

from __future__ import annotations

from typing import Any

from expander_sae.figures.answer_rows import Row, answers
from expander_sae.figures.answer_words import alike_text, budget_text, floor_name, read_name
from expander_sae.figures.candidate_costs import machine, microseconds, training_seconds
from expander_sae.figures.candidate_words import Names, seconds_text, size_text
from expander_sae.figures.candidates import CE, ERROR, METRICS, SELECTIVITY, Candidate, candidates
from expander_sae.measurements.choice import UNKNOWN
from expander_sae.measurements.pareto import front
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from expander_sae.report.formats import Column, Table, shown

_WHERE = [
    Column("model", "model", kind="place"),
    Column("layer", "layer", kind="place"),
    Column("recipe", "recipe", kind="data"),
]
_CELL = [Column(name, name, kind="data") for name in
         ("support", "encoder", "n", "d", "k", "train_tokens", "steps", "precision")]  # fmt: skip
_INTERVALS = (
    "± is half the 95 % interval of the mean, over seeds, and of selectivity over documents too; a number "
    "without ± has one seed."
)
_VALUES = [Column(CE, "CE recovered"), Column(ERROR, "rel. error"), Column(SELECTIVITY, "selectivity")]


def choice_table(results: Results) -> Table:
    """For each budget of bytes and each purpose the dictionary to take, and what no training gives."""
    columns = [
        *_WHERE, Column("asked", "if you have, and want", kind="prose"),
        Column("budget", "if you have", kind="data"), Column("purpose", "and want", kind="data"),
        Column("take", "take"), Column("size", "on disk"), Column("inference", "read by", kind="data"),
        *_VALUES,
        Column("microseconds", "μs a token", 0), Column("training_seconds", "training, s", 0),
        Column("alike", "not told apart from it, smaller"),
        Column("floor", "nobody trained", kind="prose"), Column("verdict", "which is"),
        Column("untrained", "nobody trained", kind="data"), Column("untrained_size", "its size", kind="data"),
        Column("untrained_value", "gives", kind="data"), Column("untrained_error", "its error", kind="data"),
        Column("untrained_microseconds", "its μs a token", kind="data"),
        Column("decides", "decides", kind="data"), Column("decides_half", "half its interval", kind="data"),
        Column("bytes", "bytes", kind="data"), *_CELL,
    ]  # fmt: skip
    rows = []
    for view in results.views:
        every = candidates(view)
        names = Names.of(every, view.place.n)
        rows += [{**_where(view), **_row(row, names)} for row in answers(every)]
    caption = (
        "Of the trained dictionaries that fit a budget of bytes the one with the best mean, of equal ones "
        "the smallest. Beside it the smallest smaller one that is read in the same way and not told apart "
        "from it by the 95 % intervals; where that is of the same kind, the nearest of another kind too. "
        f"Then the best that nobody trained within the same budget. {_INTERVALS} Times are estimates for "
        f"one core of an {machine().device}, to code a token and to train. Each is chosen by the numbers "
        "that are shown, of the test tokens: the best of several looks a little better than it is, and no "
        "interval has that."
    )
    return Table("choice", "Which dictionary to use", caption, columns, rows)


def _row(row: Row, names: Names) -> dict[str, Any]:
    metric, floor = row.purpose.metric, row.untrained
    found: dict[str, Any] = {
        "budget": budget_text(row.budget), "purpose": row.purpose.words, "decides": metric,
        "asked": f"{budget_text(row.budget)}, {row.purpose.words}",
        "take": "nothing fits", "verdict": row.verdict if floor and row.taken else None,
    }  # fmt: skip
    if row.alike:
        found["alike"] = alike_text(row, names)
    elif row.taken and not row.told:
        found["alike"] = UNKNOWN
    if floor:
        found |= {
            "untrained": read_name(floor, row.purpose, names), "untrained_size": size_text(floor.size),
            "untrained_value": floor.estimates[metric], "untrained_error": floor.estimates.get(ERROR),
            "untrained_microseconds": microseconds(floor), "floor": _floor_text(row, names),
        }  # fmt: skip
    if row.taken:
        found |= _told(row.taken) | {
            "take": read_name(row.taken, row.purpose, names), "size": size_text(row.taken.size),
            "decides_half": row.taken.half(metric),
            "microseconds": microseconds(row.taken), "training_seconds": training_seconds(row.taken),
        }  # fmt: skip
    return found


def _floor_text(row: Row, names: Names) -> str:
    """Which it is, with all that a choice has beside it."""
    floor = row.untrained
    if floor is None:
        return ""
    values = [f"{column.label} {shown(floor.estimates[column.name], column.digits)}"
              for column in _VALUES if column.name in floor.estimates]  # fmt: skip
    time = microseconds(floor)
    work = "" if time is None else f"; {seconds_text(time / 1e6)} a token"
    return f"{floor_name(row, names)} ({size_text(floor.size)}): {', '.join(values)}{work}"


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
        "same way is as good in fewer bytes or better in as many. Frozen ones were trained in part. "
        f"{_INTERVALS}"
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
