"""The caption of the page of choices: what a reader needs to know to read it without any other text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from expander_sae.figures.answer_rows import Purpose, Row
from expander_sae.figures.candidate_costs import machine
from expander_sae.figures.candidate_words import Names, size_text
from expander_sae.figures.candidates import CE, SELECTIVITY, Candidate

_FLOORS = {
    "pca": "PCA (principal components)",
    "random": "random columns (with the covariance of the activations)",
    "exemplars": "exemplars (activations of some training tokens, kept as columns or as token ids)",
}


def budget_text(budget: float) -> str:
    """≤ 40 kB, or any size."""
    return "any size" if math.isinf(budget) else f"≤ {size_text(budget)}"


def read_name(one: Candidate, purpose: Purpose, names: Names) -> str:
    """What a dictionary is called; with OMP where it is read so and the purpose does not say it."""
    said = len(purpose.inferences) == 1 or one.inference != "omp"
    return names(one) if said else f"{names(one)}, by OMP"


def floor_name(row: Row, names: Names) -> str:
    """The best that nobody trained; empty where there is none."""
    if row.untrained is None:
        return ""
    needs = ", needs the model" if row.untrained.by_ids else ""
    return read_name(row.untrained, row.purpose, names) + needs


def alike_text(row: Row, names: Names) -> str:
    """The smaller dictionaries that are not told apart from the one taken, each with its size."""
    return " or ".join(f"{read_name(one, row.purpose, names)} ({size_text(one.size)})" for one in row.alike)


def caption(every: Sequence[Candidate]) -> str:
    """One paragraph, with words for what is shown only."""
    floors = {one.cell.support for one in every if one.group == "untrained"}
    sentences = [
        "A dictionary writes a layer's activation as a sum of k of its n columns; an expander's columns have "
        "d nonzeros each, dense ones all m. Black steps: the best that so many bytes buy."
    ]
    if floors:
        told = "; ".join(words for name, words in _FLOORS.items() if name in floors)
        sentences.append(f"Grey: what takes no training{f': {told}' if told else ''}.")
    if any(one.group == "imported" for one in every):
        sentences.append(
            "Imported autoencoders have a k and a training of their own: steps and table leave them out."
        )
    if any(CE in one.estimates for one in every):
        sentences.append(
            "CE recovered is 1 where the model predicts as without the dictionary, 0 as without the layer; "
            "its axis is stretched near 1."
        )
    if any(SELECTIVITY in one.estimates for one in every):
        sentences.append(
            "Selectivity: F1 of the best single feature for a label, such as a token, on documents that did "
            "not choose it."
        )
    sentences.append(
        "The table takes the best trained mean that fits; under it stands the best that nobody trained, read "
        "in a way that the purpose allows. Bars: 95 % intervals. Times: estimates for one "
        f"core of an {machine().device}, to code a token and to train."
    )
    return " ".join(sentences)
