"""Regular expressions for the names that a study makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_Words = tuple[tuple[str, ...], ...]


def one_of(texts: Iterable[str]) -> str:
    """A regular expression that matches these texts whole, and nothing else.

    For texts that share their parts, which end with ``/`` or ``_``: a grid of settings becomes a choice among
    models, then among layers, and so on. Snakemake tries the constraint of a wildcard at every file; with
    thousands of alternatives side by side that takes minutes.
    """
    words = tuple(sorted({tuple(re.split(r"(?<=[/_])", text)) for text in texts}))
    return _pattern(words) if words else "(?!)"


def _pattern(words: _Words) -> str:
    """Of sorted texts in parts, none of which begins another, since the last part ends otherwise."""
    if words == ((),):
        return ""
    rests: dict[str, list[tuple[str, ...]]] = {}
    for word in words:
        rests.setdefault(word[0], []).append(word[1:])
    # First parts that the same rests follow need no branches of their own.
    heads: dict[_Words, list[str]] = {}
    for head, rest in rests.items():
        heads.setdefault(tuple(rest), []).append(re.escape(head))
    return _choice([_choice(names) + _pattern(rest) for rest, names in heads.items()])


def _choice(patterns: Sequence[str]) -> str:
    return patterns[0] if len(patterns) == 1 else f"(?:{'|'.join(patterns)})"
