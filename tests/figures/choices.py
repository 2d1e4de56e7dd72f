"""A made-up study whose tables hold what the page of choices is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from expander_sae.figures.candidates import Candidate, candidates
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View
from tests.figures.study import PLACE, SEEDS, TOKENS, K, M, Made, N

STEPS = 1500
FLOORS = ("pca", "random", "exemplars", "frozen_decoder")

TRAINED: tuple[tuple[str, int, int, float, float, float], ...] = (
    ("expander", N, 7, 0.921, 0.366, 0.46),
    ("expander", N, 30, 0.948, 0.338, 0.68),
    ("expander", N, 100, 0.973, 0.290, 0.78),
    ("bernoulli", N, 30, 0.943, 0.340, 0.66),
    ("dense", 240, M, 0.973, 0.287, 0.54),
    ("dense", 800, M, 0.985, 0.255, 0.73),
    ("dense", N, M, 0.988, 0.226, 0.83),
)
"""Support, n, d, and by the encoder: CE recovered, relative error, selectivity. OMP leaves half the loss."""

UNTRAINED: tuple[tuple[str, int, int, float, float, float], ...] = (
    ("pca", 112, M, 0.886, 0.388, 0.2),
    ("pca", 480, M, 0.974, 0.280, 0.25),
    ("random", N, 30, 0.550, 0.800, 0.61),
    ("exemplars", N, M, 0.700, 0.700, 0.84),
)

FROZEN = (("frozen_decoder", N, 7, 0.87, 0.45, 0.3), ("frozen_decoder", N, 30, 0.92, 0.40, 0.45))
"""Trained in part: an encoder for columns that stay as they were drawn."""


def rows_of(made: Made, rows: Sequence[tuple[Any, ...]], steps: int, seeds: Sequence[int]) -> None:
    """Fidelity, selectivity with its interval over documents, and bytes."""
    for support, n, d, recovered, error, selective in rows:
        for seed in seeds:
            run = {**PLACE, "recipe": "tuned", "support": support, "encoder": "tied", "n": n, "d": d,
                   "k": min(n // 2, K), "train_tokens": TOKENS, "steps": steps, "seed": seed}  # fmt: skip
            noise = 0.0005 * (seed - 1)
            for inference, left in (("encoder", 1.0), ("omp", 0.5)):
                made.add(run, inference, "ce", "ce_recovered", 1 - (1 - recovered) * left + noise)
                made.add(run, inference, "test", "relative_error", error * (0.5 + left / 2) + noise)
                made.add(run, inference, "test", "diverged", 0.0)
                value = selective * (0.8 + 0.2 * left) + noise
                for end, shift in (("", 0.0), ("_low", -0.02), ("_high", 0.02)):
                    made.add(run, inference, "test", f"selectivity{end}", value + shift)
            made.add(run, "none", "none", "decoder_values", float(n * d))
            values = n * d // (2 if support == "pca" else 1)
            made.add(run, "none", "none", "storage_total_bytes", 4.0 * (values + n + M))
            if support == "exemplars":
                made.add(run, "none", "none", "storage_ids_total_bytes", 9_400.0)


def frame(untrained: bool = True, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """The table of measurements."""
    made = Made()
    rows_of(made, TRAINED, STEPS, seeds)
    if untrained:
        rows_of(made, UNTRAINED, 0, (0,))
        rows_of(made, FROZEN, STEPS, (0,))
    return made.frame()


def only_view(table: pd.DataFrame) -> View:
    """The one place of the table."""
    (view,) = Results(table).views
    return view


def with_int8(table: pd.DataFrame) -> pd.DataFrame:
    """The table, and each trained run again with 8 bits a value: a quarter of its bytes, a little worse."""
    again = table[table["steps"] > 0].assign(precision="int8")
    size = again["metric"] == "storage_total_bytes"
    recovered = again["metric"] == "ce_recovered"
    value = again["value"].mask(size, again["value"] / 4).mask(recovered, again["value"] - 0.001)
    return pd.concat([table.assign(precision="float32"), again.assign(value=value)])


def stored(
    every: Sequence[Candidate], precision: str, share: float, losses: Mapping[str, float]
) -> list[Candidate]:
    """Trained candidates again, in a share of their bytes and with a loss of each metric."""
    found = []
    for one in every:
        if one.group == "trained":
            worse = {
                name: replace(
                    estimate, values={s: v - losses.get(name, 0.0) for s, v in estimate.values.items()}
                )
                for name, estimate in one.estimates.items()
            }
            found.append(replace(one, precision=precision, size=share * one.size, estimates=worse))
    return found


def everything() -> list[Candidate]:
    """What a full study compares: three precisions, floors, both inferences."""
    every = candidates(only_view(frame()))
    return [
        *every,
        *stored(every, "int8", 0.27, {"ce_recovered": 0.001, "relative_error": -0.002}),
        *stored(
            every,
            "int4_trained",
            0.15,
            {"ce_recovered": 0.006, "relative_error": -0.012, "selectivity": 0.02},
        ),
    ]
