"""What dictionaries, their sizes and their work are called on the page of choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from expander_sae.figures.candidates import Candidate
from expander_sae.masks.supports import described
from expander_sae.pursuit.inference import ENCODER

_NAMES = {"pca": "PCA", "random": "random columns"}
_ENCODERS = {"tied": ""}


@dataclass(frozen=True)
class Names:
    """Names of candidates that tell them apart and say no more than that.

    Args:
        n: features of the place's sparse dictionaries; only another number is said.
        precise: supports whose stored precision is said: trained and imported ones where several precisions
            occur, others where they have several of their own.
    """

    n: int
    precise: frozenset[str]

    @classmethod
    def of(cls, candidates: Sequence[Candidate], n: int) -> Names:
        """Those of these candidates."""
        found: dict[str, set[str]] = {}
        for one in candidates:
            found.setdefault(one.cell.support, set()).add(one.precision)
        several = len({one.precision for one in candidates}) > 1
        made = ("trained", "imported")
        trained = {one.cell.support for one in candidates if one.group in made and several}
        return cls(n, frozenset(trained | {support for support, own in found.items() if len(own) > 1}))

    def __call__(self, one: Candidate) -> str:
        """``expander d=30 int8``, ``dense n=240 int8``, ``exemplars as ids``, ``their-label k=32``."""
        kind = _NAMES.get(one.cell.support) or kind_text(one.cell.support)
        return f"{kind} {self.on_mark(one)}".strip()

    def on_mark(self, one: Candidate) -> str:
        """The same without the kind, which the colour of a mark says."""
        cell = one.cell
        words = []
        if cell.d < cell.m:
            words.append(f"d={cell.d}")
        if cell.support == "pca":
            words.append(f"{cell.n // 2}")  # each component is two features, one with each sign
        elif cell.n != self.n or cell.support == "dense":
            words.append(f"n={cell.n:,}")
        if one.by_ids:
            words.append("as ids")
        elif cell.support in self.precise:
            words.append(one.precision.replace("_", " "))
        if one.group == "imported":
            return " ".join(["thresholds" if cell.k == cell.n else f"k={cell.k}", *words])
        if cell.codes != ENCODER:
            words.append(f"{cell.codes.replace('_', ' ')} codes")
        if own := _ENCODERS.get(cell.encoder, "own encoder"):
            words.append("+ " + own)
        return " ".join(words)


def kind_text(support: str) -> str:
    """What a kind of decoder is called; an autoencoder from elsewhere as its user calls it."""
    known = described(support)
    return known.short if known.imported else known.short.replace("_", " ")


def size_text(size: float) -> str:
    """32256 → 32 kB, 2654208 → 2.7 MB."""
    if not math.isfinite(size):
        return "any size"
    if size >= 999_500:
        return f"{size / 1e6:.2g} MB" if size < 9.95e6 else f"{size / 1e6:,.0f} MB"
    return f"{size / 1e3:.2g} kB" if size < 9950 else f"{size / 1e3:,.0f} kB"


def seconds_text(seconds: float) -> str:
    """1.5e-4 → 150 μs, 97 → 97 s, 600 → 10 min."""
    units = ((120.0, 60.0, "min"), (1.0, 1.0, "s"), (1e-3, 1e-3, "ms"), (-math.inf, 1e-6, "μs"))
    unit, name = next((unit, name) for least, unit, name in units if seconds >= least)
    return f"{seconds / unit:.2g} {name}" if seconds / unit < 99.5 else f"{seconds / unit:,.0f} {name}"
