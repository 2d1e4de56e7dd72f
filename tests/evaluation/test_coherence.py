"""Coherence of planted features, judged by rules whose score is known."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.evaluation.coherence import MARKS, Places, chosen, judged, questions, wilson
from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.model.dictionary import SparseCode
from expander_sae.study.run import JudgeSettings
from tests.evaluation.pools import write_pool, write_run
from tests.evaluation.stand_in_judge import completion, serving
from tests.evaluation.test_analysis import analysed, values

DOCUMENTS, LENGTH, WORDS = 40, 10, 8
EXAMPLES = 4


def text() -> tuple[np.ndarray, Places]:
    """(word of each token, the tokens): every document has its own five words of eight, twice."""
    draw = np.random.default_rng(0)
    word = np.concatenate([np.repeat(draw.permutation(WORDS)[:5], 2) for _ in range(DOCUMENTS)])
    document = np.repeat(np.arange(DOCUMENTS), LENGTH)
    return word, Places([f" w{one}" for one in word], document, np.arange(len(word)))


def code_of(feature: np.ndarray) -> FeatureValues:
    """One feature for each token, of a value that tells tokens apart."""
    value = 1 + torch.linspace(0, 1, len(feature))[:, None]
    return FeatureValues.of_code(SparseCode(torch.from_numpy(feature)[:, None], value), WORDS)


def oddest(question: str) -> str:
    """Names the line whose marked word is the rarest among the lines."""
    words = re.findall(f"{MARKS[0]}(.*?){MARKS[1]}", question.split("\n\n")[1])
    counts = Counter(words)
    return str(min(range(len(words)), key=lambda line: counts[words[line]]) + 1)


def test_features_that_stand_for_a_word_are_coherent_and_others_are_not() -> None:
    word, places = text()
    planted = questions(code_of(word), places, 0, 100, EXAMPLES, window=3)
    assert len(planted) == WORDS == len({question.feature for question in planted})
    found = judged(planted, oddest, EXAMPLES)
    assert found["coherence"] == 1.0 and found["coherence_chance"] == 1 / (EXAMPLES + 1)
    assert found["coherence_low"] < 1.0 == found["coherence_high"]
    # The same rule on features that fire by chance: of 300 questions as many are right as guesses are.
    right = total = 0.0
    for seed in range(40):
        chance = np.random.default_rng(seed).integers(0, WORDS * 4, len(word))
        told = judged(questions(code_of_many(chance), places, seed, 100, 3, 3), oddest, 3)
        total += told["coherence_features"]
        right += told["coherence"] * told["coherence_features"]
    assert total >= 300 and abs(right / total - 1 / 4) < 4 * np.sqrt(3 / 16 / total)


def code_of_many(feature: np.ndarray) -> FeatureValues:
    value = 1 + torch.linspace(0, 1, len(feature))[:, None]
    return FeatureValues.of_code(SparseCode(torch.from_numpy(feature)[:, None], value), WORDS * 4)


def test_a_question_shows_the_places_of_largest_values_and_one_where_the_feature_is_silent() -> None:
    word, places = text()
    for question in questions(code_of(word), places, 3, 100, EXAMPLES, window=2):
        lines = question.text.split("\n\n")[1].split("\n")
        assert [line.split(".")[0] for line in lines] == [str(i + 1) for i in range(EXAMPLES + 1)]
        held = np.unique(places.document[word == question.feature])
        # Values rise along the text, so the last documents have the largest, their second token of the word.
        expected = set()
        for document in held[-EXAMPLES:]:
            at = np.flatnonzero((places.document == document) & (word == question.feature))[-1]
            before = "".join(places.text[max(document * LENGTH, at - 2) : at])
            after = "".join(places.text[at + 1 : min(at + 2, (document + 1) * LENGTH)])
            expected.add(" ".join(f"{before}{MARKS[0]}{places.text[at]}{MARKS[1]}{after}".split()))
        shown = [line.split(". ", 1)[1] for line in lines]
        intruder = shown.pop(question.intruder - 1)
        assert set(shown) == expected
        assert f"w{question.feature}" not in intruder


def test_who_always_names_one_line_is_right_as_often_as_chance() -> None:
    word, places = text()
    told = [
        question.intruder
        for seed in range(60)
        for question in questions(code_of(word), places, seed, 100, EXAMPLES, window=2)
    ]
    counts = np.bincount(told, minlength=EXAMPLES + 2)[1:]
    expected = len(told) / (EXAMPLES + 1)
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # χ² of 4 degrees, 1 in 1,000


def test_only_features_with_places_enough_are_asked_about_and_no_more_than_wanted() -> None:
    word, places = text()
    rare = np.where((word == 3) & (places.document >= EXAMPLES), 0, word)
    asked = questions(code_of(rare), places, 0, 5, EXAMPLES, window=2)
    assert len(asked) == 5 and all(question.feature not in (3,) for question in asked)
    assert asked == questions(code_of(rare), places, 0, 5, EXAMPLES, window=2)
    everywhere = np.zeros_like(word)
    assert questions(code_of(everywhere), places, 0, 5, EXAMPLES, window=2) == []
    assert judged([], oddest, EXAMPLES) == {}


@pytest.mark.parametrize(
    ("answer", "line"),
    [("3", 3), (" Line 3.", 3), ("3, since 3 differs", 3), ("", None), ("none", None), ("2 or 3", None),
     ("0", None), ("7", None), ("30", None)],
)  # fmt: skip
def test_an_answer_names_one_line_or_none(answer: str, line: int | None) -> None:
    assert chosen(answer, 6) == line


def test_wilson_s_interval_is_the_root_of_its_equation() -> None:
    for right, total in ((0, 10), (3, 10), (10, 10), (50, 100)):
        low, high = wilson(right, total)
        assert (low == 0) == (right == 0) and (high == 1) == (right == total)
        for end in (low, high):
            if 0 < end < 1:
                z = (right / total - end) / np.sqrt(end * (1 - end) / total)
                assert abs(z) == pytest.approx(1.959963984540054)
        assert low <= right / total <= high


def test_the_analysis_asks_the_endpoint_and_writes_rows(tmp_path: Path) -> None:
    pool = write_pool(tmp_path)
    write_run(tmp_path / "run")
    with serving(lambda question: completion("not one")) as server:
        told = JudgeSettings(server.url, "small", None, features=3, examples=2, window=4)
        frame = analysed(tmp_path / "run", pool, analyses=("coherence",), inference=("encoder",), judge=told)
    found = values(frame, "encoder", "test")
    assert found["coherence"] == 0 == found["coherence_low"] and found["coherence_unread"] == 1
    assert found["coherence_features"] == len(server.requests) == 3
    assert {request["model"] for request in server.requests} == {"small"}
    with pytest.raises(UserError, match=r"evaluation\.judge: missing"):
        analysed(tmp_path / "run", pool, analyses=("coherence",), judge=None)


def test_settings_of_a_judge_come_back_from_their_json() -> None:
    from tests.evaluation.test_analysis import SETTINGS

    told = replace(SETTINGS, judge=JudgeSettings("http://here/v1", "small", "KEY", 10, 5, 24))
    assert type(told).from_json(told.json) == told
    assert "judge" not in SETTINGS.json and type(SETTINGS).from_json(SETTINGS.json) == SETTINGS
    broken = told.json | {"judge": {"url": "http://here"}}
    with pytest.raises(UserError, match=r"analysis\.judge\.model: missing"):
        type(told).from_json(broken)
