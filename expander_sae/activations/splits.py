"""Which split a document belongs to, and how many shards a split has. Standard library only."""

from __future__ import annotations

import hashlib
from typing import Any

SPLITS = ("train", "test", "ce")
VALIDATION = "validation"
"""A split that only studies have that choose something on it: documents held out from training that neither
test nor ce needs."""

EXACT_TOKENS = 1 << 20
"""Tokens of documents that are compared exactly for near-duplicates, where `corpus.exact_tokens` does not say
otherwise; their word sequences take about 45 MB."""

_SHARES = {"train": 0.80, "test": 0.12, "ce": 0.08}


def split_of(text: str, data_seed: int) -> str:
    """Split of a document, from (data_seed, its text) alone: 80 % train, 12 % test, 8 % ce.

    Since nothing else decides, asking for more tokens of one split moves no document of another.
    """
    sha256 = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    drawn = hashlib.sha256(f"expander-sae/split/{data_seed}/{sha256}".encode()).digest()
    place = int.from_bytes(drawn[:8], "big") / 2**64
    for split in SPLITS:
        place -= _SHARES[split]
        if place < 0:
            return split
    return SPLITS[-1]


def shard_counts(needs: dict[str, int], context: int) -> dict[str, int]:
    """Shards of each split for `needs` = {train: tokens, test: tokens, ce: sequences, shard: tokens}, and
    where a validation split is wanted {validation: tokens}.

    A sequence has at most `context` tokens, so ⌈sequences · context / shard⌉ shards hold the
    asked sequences whole.
    """
    return {split: -(-tokens // needs["shard"]) for split, tokens in least_tokens(needs, context).items()}


def least_tokens(needs: dict[str, Any], context: int) -> dict[str, int]:
    """Tokens that each split's shards must cover."""
    least = {"train": needs["train"], "test": needs["test"], "ce": needs["ce"] * context}
    return least | ({VALIDATION: needs[VALIDATION]} if needs.get(VALIDATION) else {})
