"""Kinds and positions of tokens, from sentences that are labelled by hand."""

from __future__ import annotations

from typing import Any

import pytest

from expander_sae.activations.token_labels import kinds, positions, token_texts


def pairs(found: list[Any], texts: list[str]) -> list[tuple[str, Any]]:
    return [(text, label) for text, label in zip(texts, found, strict=True) if label is not None]


def test_kinds() -> None:
    expected = {
        "<s>": "special",
        "The": "word",
        " grid": "word",
        "lines": "continuation",
        " of": "word",
        " x": "word",
        "_": "punctuation",
        "max": "continuation",
        " (": "punctuation",
        "arr": "word",
        "ays": "continuation",
        "):": "punctuation",
        "\n   ": "blank",
        "12": "digits",
        "th": "continuation",
        " x2": "code",
        " getItem": "code",
        " don't": "code",
        " NASA": "word",
        "…": "punctuation",
        " größe": "word",
        "": "blank",
    }
    texts = list(expected)
    assert kinds(texts, range(len(texts)), {0}) == list(expected.values())


def test_positions() -> None:
    texts = [str(number) for number in range(7)] + [" eighth", " ninth", ".", " A", " sentence", "!"]
    texts += ["\n\n", "  ", " -", " item", " 1", ".", "5", "?", ' "', "Yes", ".", "\n"]
    assert pairs(positions(texts), texts) == [
        *((text, "document_start") for text in texts[:8]),
        (".", "sentence_end"),
        (" A", "sentence_start"),
        ("!", "sentence_end"),
        (" -", "line_start"),
        (" item", "sentence_start"),
        ("?", "sentence_end"),
        ("Yes", "sentence_start"),
        (".", "sentence_end"),
    ]


def test_every_document_begins_anew() -> None:
    assert positions(["End", "."]) == ["document_start"] * 2
    assert kinds(["a"], [5], ()) == ["word"]


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_the_space_before_a_word_is_kept(mark: str) -> None:
    class Tokenizer:
        pieces = (f"{mark}the", "re", f"{mark}")

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [self.pieces[number] for number in ids]

        def decode(self, ids: list[int], clean_up_tokenization_spaces: bool) -> str:
            text = self.pieces[ids[0]].replace(mark, " ")
            # A tokenizer with ▁ drops the space where a text begins, and each token is decoded alone.
            return text.removeprefix(" ") if mark == "▁" else text

    assert token_texts(Tokenizer(), [0, 1, 0, 2]) == [" the", "re", " the", " "]
