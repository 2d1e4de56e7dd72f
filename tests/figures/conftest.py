"""A made-up but plausible table of measurements, for looking at figures and for testing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]

_SHIFT = {"expander": 0.0, "bernoulli": -0.012, "clustered": -0.05, "clustered_cover": 0.006, "dense": 0.025}


def made_up_metrics(
    model: str = "smollm2-135m",
    layer: int = 15,
    m: int = 576,
    expansion: int = 8,
    ds: Sequence[int] = (7, 30, 100),
    k: int = 64,
    seeds: Sequence[int] = (0, 1, 2),
    control_seeds: Sequence[int] = (0,),
    controls: Sequence[str] = ("bernoulli", "clustered", "clustered_cover"),
    dense: bool = True,
    omp: bool = True,
    omp_ce: bool = True,
    recipe: str = "standard",
    train_tokens: int = 120_000,
    steps: int = 1500,
    corpus: str = "docstrings",
) -> pd.DataFrame:
    """One model, layer and k in the columns of metrics.parquet."""
    rng = np.random.default_rng([layer, m, k, *ds])
    n = expansion * m
    rows: list[dict[str, Any]] = []

    def add(support: str, features: int, d: int, seed: int) -> None:
        run = {
            "model": model, "corpus": corpus, "layer": layer, "recipe": recipe, "support": support,
            "encoder": "tied", "m": m, "n": features, "d": d, "k": k,
            "train_tokens": train_tokens, "steps": steps, "seed": seed,
        }  # fmt: skip
        size = features * d / (m * n)
        sharpness = 0.35 * np.log(k / 16) / np.log(8)
        base = 0.93 + 0.045 * np.log10(size) - 0.03 * (0.6 - sharpness) + _SHIFT.get(support, 0.0) * size**0.3
        error = 0.38 - 0.075 * np.log10(size) - 0.2 * (sharpness - 0.2) - _SHIFT.get(support, 0.0) * size**0.3
        for inference, gain in (("encoder", 0.0), ("omp", 1.0)):
            if inference == "omp" and not omp:
                continue
            wobble = rng.normal(0, 0.002)
            values = {
                ("test", "relative_error"): error * (1 - 0.18 * gain) + wobble,
                ("test", "explained_variance"): 1 - (error * (1 - 0.18 * gain)) ** 2,
                ("test", "dead_fraction"): 0.001,
                ("test", "l0"): float(k),
                ("test", "encoded_share"): 0.992,
                ("test", "diverged"): 0.0,
            }
            if inference == "encoder" or (omp_ce and support in ("expander", "dense")):
                recovered = base + 0.03 * gain * (1 - base) / 0.15 + wobble
                values["ce", "ce_recovered"] = recovered
                values["ce", "ce_recovered_zero_kept"] = recovered - 0.03
                values["ce", "ce_recovered_mean"] = recovered - 0.09
            rows.extend(
                run | {"inference": inference, "split": split, "metric": metric, "value": value}
                for (split, metric), value in values.items()
            )
        stored = {"decoder_values": float(features * d), "uncovered_rows": 0.0}
        rows.extend(
            run | {"inference": "none", "split": "none", "metric": metric, "value": value}
            for metric, value in stored.items()
        )

    for d in ds:
        for seed in seeds:
            add("expander", n, d, seed)
        for control in controls:
            for seed in control_seeds:
                add(control, n, d, seed)
        if dense and d * n // m > 2 * k:
            for seed in control_seeds:
                add("dense", d * n // m, m, seed)
    if dense:
        for seed in control_seeds:
            add("dense", n, m, seed)
    own = {
        "model": model, "corpus": corpus, "layer": layer, "recipe": recipe, "support": "none",
        "encoder": "none", "m": m, "n": 0, "d": 0, "k": 0, "train_tokens": train_tokens, "steps": 0,
        "seed": 0, "inference": "none", "split": "ce",
    }  # fmt: skip
    entropies = {"ce_clean": 3.21, "ce_zero": 11.4, "ce_mean": 7.9, "ce_zero_kept": 8.6, "ce_mean_kept": 7.1}
    rows.extend(own | {"metric": metric, "value": value} for metric, value in entropies.items())
    return pd.DataFrame(rows)


def mark_diverged(frame: pd.DataFrame, support: str, d: int, seeds: Sequence[int]) -> pd.DataFrame:
    """The same table with some runs diverged: flagged, and with absurd or missing values."""
    frame = frame.copy()
    hit = (frame["support"] == support) & (frame["d"] == d) & frame["seed"].isin(seeds)
    frame.loc[hit & (frame["metric"] == "diverged"), "value"] = 1.0
    frame.loc[hit & (frame["metric"] == "relative_error"), "value"] = 8.8
    frame.loc[hit & frame["metric"].str.startswith("ce_rec"), "value"] = float("nan")
    return frame


@pytest.fixture(scope="session")
def table() -> Callable[..., pd.DataFrame]:
    """`made_up_metrics`."""
    return made_up_metrics


@pytest.fixture(scope="session")
def diverge() -> Callable[..., pd.DataFrame]:
    """`mark_diverged`."""
    return mark_diverged


@pytest.fixture(scope="session")
def published_csv() -> Path:
    """The shipped table of published figures."""
    return ROOT / "resources" / "paper_figures.csv"
