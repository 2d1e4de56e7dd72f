"""Coherence of features, as a language model judges it: can it tell the place where a feature is silent?

For each feature the judge sees the places where it fires most, and one more from another document, where it
is silent: an intruder (Chang et al., 2009, Reading Tea Leaves). The judge names the intruder. Who guesses is
right once in as many times as there are places, so this score has a floor that needs no second model and no
scale of the judge's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.rng import Integers

Judge = Callable[[str], str]
"""A question → the answer, in words."""

MARKS = ("⟦", "⟧")
"""Around the token that a place is about."""


@dataclass(frozen=True, eq=False)
class Places:
    """The tokens of whole documents, in order: their texts, their documents int64 [T], and which are read.

    `read` is int64 [N]: of the T tokens those that codes were found for, in the order of the codes.
    """

    text: Sequence[str]
    document: np.ndarray
    read: np.ndarray

    def snippet(self, token: int, window: int) -> str:
        """The token in its document, marked, with so many tokens before it and half as many after."""
        at = int(self.read[token])
        inside = self.document == self.document[at]
        low, high = int(inside.argmax()), len(inside) - int(inside[::-1].argmax())
        before = "".join(self.text[max(low, at - window) : at])
        after = "".join(self.text[at + 1 : min(high, at + 1 + window // 2)])
        return " ".join(f"{before}{MARKS[0]}{self.text[at]}{MARKS[1]}{after}".split())


@dataclass(frozen=True)
class Question:
    """What the judge is asked of one feature; `intruder` is the right answer, counted from 1."""

    feature: int
    text: str
    intruder: int


def questions(
    values: FeatureValues, places: Places, seed: int, features: int, examples: int, window: int
) -> list[Question]:
    """Questions on at most so many features, drawn from those that fire in at least `examples` documents.

    A document gives one place: that with its value of largest size.
    """
    document = places.document[places.read]
    best = [_best_places(values, document, feature, examples) for feature in range(len(values.starts) - 1)]
    able = np.array([feature for feature, tops in enumerate(best) if len(tops) == examples], dtype=np.int64)
    order = Integers(seed, "judged features").permutation(len(able))
    draw = Integers(seed, "intruders")
    asked: list[Question] = []
    for feature in able[order].tolist():
        if len(asked) == features:
            break
        fires = values.token[values.starts[feature] : values.starts[feature + 1]]
        outside = np.flatnonzero(~np.isin(document, document[fires]))
        if not len(outside):  # it fires in every document
            continue
        intruder = int(outside[draw.below(len(outside), 1)[0]])
        place = int(draw.below(examples + 1, 1)[0])
        tokens = np.insert(best[feature], place, intruder)
        asked.append(Question(feature, _words([places.snippet(t, window) for t in tokens]), place + 1))
    return asked


def _best_places(values: FeatureValues, document: np.ndarray, feature: int, most: int) -> np.ndarray:
    """Tokens of the values of largest size, one a document, at most so many."""
    part = slice(values.starts[feature], values.starts[feature + 1])
    order = np.argsort(-np.abs(values.value[part]), kind="stable")
    token = values.token[part][order]
    _, first = np.unique(document[token], return_index=True)
    return token[np.sort(first)[:most]]


def _words(snippets: Sequence[str]) -> str:
    listed = "\n".join(f"{number}. {snippet}" for number, snippet in enumerate(snippets, 1))
    return (
        f"Each line below is a piece of text with one token between {MARKS[0]} and {MARKS[1]}. In all lines "
        "but one the marked token, where it stands, has something in common: a word, a kind of word, a "
        f"topic, or a role in its sentence. One line was put there by chance.\n\n{listed}\n\n"
        f"Which line was put there by chance? Answer with its number alone, from 1 to {len(snippets)}."
    )


def chosen(answer: str, most: int) -> int | None:
    """The line that an answer names: its one number, from 1 to `most`; None for no number or several."""
    numbers = {int(found) for found in re.findall(r"\d{1,4}", answer)}
    return numbers.pop() if len(numbers) == 1 and 1 <= min(numbers) <= most else None


def judged(asked: Sequence[Question], judge: Judge, examples: int) -> dict[str, float]:
    """Metrics of the answers; none where nothing could be asked.

    `coherence` is the share of features whose intruder is named, an answer that names no line being wrong,
    with Wilson's interval of 95 %; `coherence_chance` is what guessing gives, `coherence_unread` the share of
    such answers, and `coherence_features` how many features were asked about.
    """
    if not asked:
        return {}
    told = [chosen(judge(question.text), examples + 1) for question in asked]
    total, right = len(asked), sum(a == q.intruder for a, q in zip(told, asked, strict=True))
    low, high = wilson(right, total)
    return {
        "coherence": right / total,
        "coherence_low": low,
        "coherence_high": high,
        "coherence_chance": 1 / (examples + 1),
        "coherence_unread": told.count(None) / total,
        "coherence_features": float(total),
    }


def wilson(right: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's (1927) interval of a share, by default of 95 %."""
    share, spread = right / total, z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    # At either end the formula gives the end itself, but for rounding.
    return float(middle - half) if right else 0.0, float(middle + half) if right < total else 1.0
