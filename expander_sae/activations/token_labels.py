"""What a token is and where it stands, from its text and from that of the tokens before and behind it.

Kinds, the first that fits:

    special        the tokenizer's own, such as the beginning of a text
    blank          spaces and line feeds alone
    digits         digits alone, but for spaces around them
    punctuation    neither letter nor digit
    code           letters with anything else, or with a capital after a small letter
    continuation   letters behind a letter, a digit or an underscore
    word           other letters: a word, or its beginning

Positions, the first that fits; most tokens have none:

    document_start    the first eight tokens
    line_start        the first token with a sign on a new line
    sentence_start    the first token with a letter or digit behind the end of a sentence
    sentence_end      ends in a full stop, question mark or exclamation mark, with a blank or nothing behind
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

DOCUMENT_START = 8
_ENDS = (".", "?", "!")


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token, with the space before a word that tokenizers mark by a sign of their own."""
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    texts = [tokenizer.decode([number], clean_up_tokenization_spaces=False) for number in ids]
    marked = [isinstance(piece, str) and piece.startswith(("Ġ", "▁")) for piece in pieces]
    return [
        f" {text}" if mark and not text.startswith(" ") else text
        for mark, text in zip(marked, texts, strict=True)
    ]


def kinds(texts: Sequence[str], ids: Sequence[int], special: Collection[int]) -> list[str]:
    """The kind of each token of one document."""
    found, before = [], ""
    for text, number in zip(texts, ids, strict=True):
        found.append("special" if number in special else _kind(text, before))
        before = text
    return found


def _kind(text: str, before: str) -> str:
    core = text.strip()
    if not core:
        return "blank"
    if core.isdigit():
        return "digits"
    if not any(sign.isalnum() for sign in core):
        return "punctuation"
    capital_inside = any(a.islower() and b.isupper() for a, b in pairwise(core))
    if not core.isalpha() or capital_inside:
        return "code"
    goes_on = not text[0].isspace() and (before[-1:].isalnum() or before.endswith("_"))
    return "continuation" if goes_on else "word"


def positions(texts: Sequence[str]) -> list[str | None]:
    """The position of each token of one document."""
    found: list[str | None] = []
    new_line = new_sentence = False
    for place, text in enumerate(texts):
        core, behind = text.strip(), texts[place + 1] if place + 1 < len(texts) else ""
        ends = core.endswith(_ENDS) and (text != text.rstrip() or not behind.strip() or behind[0].isspace())
        label = None
        if place < DOCUMENT_START:
            label = "document_start"
        elif new_line and core:
            label = "line_start"
        elif new_sentence and any(sign.isalnum() for sign in core):
            label = "sentence_start"
        elif ends:
            label = "sentence_end"
        found.append(label)
        if core:
            new_line = False
            new_sentence = new_sentence and not any(sign.isalnum() for sign in core)
        new_line = new_line or "\n" in text
        new_sentence = new_sentence or ends
    return found
