"""How long one correlation takes, O(d·n) as the paper says against O(m·n), on the machine at hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from expander_sae.masks.recipe import MaskRecipe
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseDictionary
from expander_sae.rng import torch_generator

BATCH = 256
"""Residuals of one correlation."""
ROUNDS = 15


def random_dictionary(
    m: int, n: int, d: int, seed: int, device: str = "cpu", backend: str = "auto"
) -> SparseDictionary:
    """Random values on the expander mask of this seed, float32."""
    mask = MaskRecipe("expander", m, n, d, seed).generate()
    values = torch.randn(n, d, generator=torch_generator(seed, f"speed/values/{m}/{n}/{d}"))
    return SparseDictionary(values.to(device), torch.from_numpy(mask.rows).to(device), m, backend)


def random_dense(m: int, n: int, device: str = "cpu") -> DenseDictionary:
    """Random values everywhere, float32."""
    return DenseDictionary(torch.randn(n, m, generator=torch_generator(0, f"speed/dense/{m}/{n}")).to(device))


def correlation_ms(dictionaries: Sequence[Dictionary], rounds: int = ROUNDS) -> list[float]:
    """Median milliseconds of correlating 256 residuals with all columns, for each dictionary.

    Rounds take the dictionaries in turn, so that a slow moment of the machine falls on all of them; the
    first call of each, which may compile, is not counted.
    """
    place = {one.m: one.device for one in dictionaries}
    streams = {m: torch_generator(0, f"speed/residual/{m}") for m in place}
    residuals = {m: torch.randn(BATCH, m, generator=streams[m]).to(place[m]) for m in place}
    for one in dictionaries:
        one.correlate(residuals[one.m])
    times: list[list[float]] = [[] for _ in dictionaries]
    for _ in range(rounds):
        for one, found in zip(dictionaries, times, strict=True):
            _wait(one)
            began = time.perf_counter()
            one.correlate(residuals[one.m])
            _wait(one)
            found.append(1000 * (time.perf_counter() - began))
    return [median(found) for found in times]


def _wait(dictionary: Dictionary) -> None:
    if dictionary.device.type == "cuda":
        torch.cuda.synchronize(dictionary.device)


def write_speed(
    runs: Sequence[Mapping[str, Any]],
    out: Path,
    device: str = "cpu",
    backend: str = "auto",
    rounds: int = ROUNDS,
) -> None:
    """Write the rows `correlate_ms` and `correlate_ms_per_d` of tied expander and tied dense runs.

    The runs are given by their values of `tables.RUN_COLUMNS`. The time depends on m, n, d and the mask's
    seed alone: it is measured once for runs that share them. No time is the same twice.
    """
    shapes = sorted({_shape(run) for run in runs})
    # The seed of a dense dictionary changes nothing: one tensor is timed as often as there are seeds.
    dense = {(m, n): random_dense(m, n, device) for name, m, n, _, _ in shapes if name == "dense"}
    made = [
        dense[m, n] if name == "dense" else random_dictionary(m, n, d, seed, device, backend)
        for name, m, n, d, seed in shapes
    ]
    taken = dict(zip(shapes, correlation_ms(made, rounds), strict=True))
    metrics: list[dict[str, Any]] = []
    for run in runs:
        rows = Rows({column: run[column] for column in tables.RUN_COLUMNS})
        took = taken[_shape(run)]
        rows.add("none", "speed", {"correlate_ms": took, "correlate_ms_per_d": took / run["d"]})
        metrics += rows.metrics
    tables.write_metrics(metrics, out)


def _shape(run: Mapping[str, Any]) -> tuple[str, int, int, int, int]:
    return run["support"], run["m"], run["n"], run["d"], run["seed"]
