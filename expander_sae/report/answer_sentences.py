"""The answer in a few sentences, each beside the verdicts that bear on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expander_sae.figures.answer_rows import Row, answers
from expander_sae.figures.candidate_words import Names, size_text
from expander_sae.figures.candidates import CE, ERROR, SELECTIVITY, Candidate, candidates
from expander_sae.figures.verdicts import VERDICTS, by_setting
from expander_sae.measurements.results import Results

_MEANS = {CE: "CE recovered", ERROR: "relative error", SELECTIVITY: "F1 of a label's best feature"}
_SAID = {
    "fidelity_encoder": "For fidelity by the encoder, one product a token, take",
    "fidelity_omp": "For fidelity by OMP, a round for each active feature, take",
    "features": "For features that somebody is to read, take",
}
_BEARING = {
    "fidelity_encoder": ("matched-budget", "iso-bytes"),
    "fidelity_omp": ("matched-budget-omp", "iso-bytes-omp", "omp-gain"),
    "features": ("equal-bytes-selectivity", "iso-bytes-selectivity", "selectivity-floor"),
}
"""Claims whose verdicts stand beside a purpose's sentence."""

SHORT = {
    "matched-budget": "expander recovers more",
    "matched-budget-omp": "expander recovers more",
    "iso-bytes": "recovers more than 4-bit",
    "iso-bytes-omp": "less error than 4-bit",
    "omp-gain": "OMP gains 15–25 %",
    "equal-bytes-selectivity": "expander is more selective",
    "iso-bytes-selectivity": "more selective than 4-bit",
    "selectivity-floor": "more selective than random",
    "pca-floor": "smallest d beats PCA",
    "pca-floor-middle": "middle d beats PCA",
    "untrained-floor": "smallest d beats random",
    "untrained-floor-omp": "middle d beats random",
    "retention": "expander keeps 84 %",
    "frontier-ends": "more values recover more",
    "diversity-clustered": "many supports beat few",
}
"""What each of these claims says, in words short enough to stand with its verdict behind a sentence."""

_FLOORS = ("pca-floor", "pca-floor-middle", "untrained-floor", "untrained-floor-omp")
_PAPER = ("retention", "frontier-ends", "diversity-clustered")


@dataclass(frozen=True)
class Sentence:
    """One sentence, and the records of the claims whose verdicts stand beside it."""

    text: str
    claims: tuple[dict[str, Any], ...]


def sentences(results: Results) -> list[Sentence]:
    """At most five: what to take for each purpose, what nobody trained gives, and how the claims came out.

    They are about the first place of the results, and about the first setting that was judged.
    """
    settings = by_setting(results.claims)
    name = next(iter(settings), "")
    judged = {record["id"]: record for record in settings.get(name, []) if record["verdict"] != "not run"}

    def sentence(text: str, ids: Sequence[str]) -> Sentence:
        return Sentence(text, tuple(judged[one] for one in ids if one in judged))

    every = candidates(results.views[0]) if results.views else []
    rows, names = answers(every), Names.of(every, results.views[0].place.n) if every else None
    found = []
    if names is not None:
        purposes = dict.fromkeys(row.purpose.name for row in rows)
        told = {purpose: [row for row in rows if row.purpose.name == purpose] for purpose in purposes}
        for purpose, words in _SAID.items():
            if text := _taken(told.get(purpose, []), words, names):
                found.append(sentence(text, _BEARING[purpose]))
        if text := _untrained([told[purpose][-1] for purpose in purposes], names):
            found.append(sentence(text, _FLOORS))
    if judged:
        found.append(sentence(_counts(settings[name], name), _PAPER))
    return found


def _taken(rows: Sequence[Row], words: str, names: Names) -> str:
    """What each budget buys, each dictionary once, with the largest budget that buys it."""
    bought: dict[str, str] = {}
    for row in rows:
        if row.taken is not None:
            name, size = names(row.taken), size_text(row.taken.size)
            within = "" if math.isinf(row.budget) else f" within {size_text(row.budget)}"
            bought[name] = f"{name}{within} ({size}: {_value(row.taken, row)})"
    if not bought:
        return ""
    what = _MEANS[rows[0].purpose.metric]
    return f"{words} {_listed(list(bought.values()))}; in brackets its size and {what}."


def _value(one: Candidate, row: Row) -> str:
    return f"{one.estimates[row.purpose.metric].mean:.3f}"


def _untrained(rows: Sequence[Row], names: Names) -> str:
    """The best that nobody trained, at any size, for each purpose."""
    parts = []
    for row in rows:
        if row.untrained is not None:
            floor, own = row.untrained, "" if row.taken is None else f"; trained {_value(row.taken, row)}"
            about = f"{names(floor)}, {size_text(floor.size)}{own}"
            parts.append(f"{row.purpose.words} {_value(floor, row)} ({about})")
    return f"What nobody trained gives at most, at any size: {_listed(parts)}." if parts else ""


def _counts(claims: Sequence[dict[str, Any]], setting: str) -> str:
    """How the claims of a setting came out."""
    counts = {name: sum(record["verdict"] == name for record in claims) for name in VERDICTS}
    told = _listed([f"{count} {_VERBS[name][count != 1]}" for name, count in counts.items() if count])
    return f"Of {len(claims)} claims asked in this run's setting, {setting}, {told}."


_VERBS = {
    "holds": ("holds", "hold"),
    "fails": ("fails", "fail"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
    "not run": ("was not run", "were not run"),
}
"""One, several."""


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
