"""A made-up study that holds every metric, support, encoder and pursuit that figures know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from expander_sae.measurements.tables import CURVES, METRICS, completed
from expander_sae.study.run import LEFT_OUT

M, N, K, TOKENS, STEPS = 576, 4608, 64, 200_000, 5000
SEEDS = (0, 1, 2)
PLACE: dict[str, Any] = {
    "model": "smollm2-135m-instruct", "corpus": "docstrings", "layer": 15, "recipe": "standard", "m": M,
}  # fmt: skip
SIZES = {"test": ("relative_error", 0.45), "ce": ("ce_recovered", 0.88)}
LATER = (
    *["collision_coverage", "collision_deficit", "collision_duplicate_edges"],
    *["novel_share_jaccard", "novel_share_cosine", "token_entropy", "token_entropy_novel"],
)
CERTIFIED = ("flatness", "cumulative_coherence_k", "identifiability", "omp_condition")
USED = ("restricted_sigma_min", "recovery_margin_positive")
STORED = ("values", "values_rows", "encoder", "mask_recipe", "total")


class Made:
    """Rows under construction, with reproducible noise."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(7)
        self.rows: list[dict[str, Any]] = []

    def run(self, support: str, d: int, seed: int, base: float = 0.0, **columns: Any) -> dict[str, Any]:
        """A run with fidelity by encoder and OMP, storage and dead features."""
        run = {**PLACE, "support": support, "encoder": "tied", "n": N, "d": d, "k": K,
               "train_tokens": TOKENS, "steps": STEPS, "seed": seed, **columns}  # fmt: skip
        size = np.log10(run["n"] * d / (M * N)) + 0.3 * np.log2(run["k"] / K)
        for inference, gain in (("encoder", 0.0), ("omp", 0.2)):
            noise = 0.003 * self.rng.standard_normal()
            self.add(
                run, inference, "test", "relative_error", (0.35 - 0.08 * size - base) * (1 - gain) + noise
            )
            self.add(run, inference, "ce", "ce_recovered", 0.95 + 0.05 * size + base + 0.1 * gain + noise)
            self.add(run, inference, "test", "diverged", 0.0)
        for end, shift in (("zero_kept", -0.02), ("mean", -0.08)):
            self.add(run, "encoder", "ce", f"ce_recovered_{end}", 0.95 + 0.05 * size + base + shift)
        self.add(run, "encoder", "test", "dead_fraction", 0.002)
        self.add(run, "encoder", "test", "explained_variance", 0.8)
        for place, part in enumerate(STORED):
            self.add(run, "none", "none", f"storage_{part}_bytes", float(4 * run["n"] * d + 100 * place))
        for name in ("decoder_values", "encoder_values"):
            self.add(run, "none", "none", name, float(run["n"] * d))
        return run

    def add(self, run: dict[str, Any], inference: str, split: str, metric: str, value: float) -> None:
        self.rows.append({**run, "inference": inference, "split": split, "metric": metric, "value": value})

    def analyses(self, run: dict[str, Any]) -> None:
        """What is measured of trained runs beside their errors."""
        for place, tokens in enumerate((1024, 2048, 4096)):
            self.add(run, "encoder", "test", f"dead_fraction_t{tokens}", 0.02 / 2**place)
        for metric in LATER:
            self.add(run, "encoder", "test", metric, 0.3 + 0.01 * self.rng.standard_normal())
            self.add(run, "encoder", "test", f"{metric}_null", 0.2)
        for metric in CERTIFIED:
            self.add(run, "none", "none", metric, 2.0 + run["d"])
        for metric in USED:
            self.add(run, "encoder", "test", metric, 0.4)
        for place, inference in enumerate(("encoder", "omp", "niht", "cosamp", "block_omp_1", "block_omp_8")):
            self.add(run, inference, "pursuit", "relative_error", 0.5 - 0.01 * place)

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame([LEFT_OUT | row for row in self.rows])[list(METRICS)]


def study(later: bool = True) -> pd.DataFrame:
    """The whole table; without `later`, what the default run measures."""
    made = Made()
    controls = ("bernoulli", "clustered", "clustered_cover")
    better = ("right_regular", "girth6", "min_overlap", "pruned_retuned", "dose144", "dose576")
    for seed in SEEDS:
        for d in (7, 30, 100):
            names = ("expander", *controls, *(better if later else ()))
            runs = [made.run(name, d, seed, 0.01 * place) for place, name in enumerate(names)]
            small = d * N // M
            if small > 2 * K:
                made.run("dense", M, seed, n=small)
            if not later:
                continue
            for run in runs:
                made.analyses(run)
            for k in (16, 128):
                made.run("expander", d, seed, k=k)
            for encoder in ("warm_tied", "independent", "own_support", "full"):
                made.run("expander", d, seed, 0.01, encoder=encoder)
            for tokens in (10_000, 50_000):
                made.run("expander", d, seed, -0.02, train_tokens=tokens)
            made.run("dense", M, seed, -0.05, steps=max(1, round(STEPS * d / M)))
            made.run("dense", M, seed, n=small // 2, encoder="warm_tied")
            made.run("expander", d, seed, -0.03, layer=20)
        made.analyses(made.run("dense", M, seed))
        if later:
            made.run("dense", M, seed, encoder="warm_tied")
            made.run("dense", M, seed, layer=20)
    own = {**PLACE, "support": "none", "encoder": "none", "n": 0, "d": 0, "k": 0, "train_tokens": TOKENS,
           "steps": 0, "seed": 0}  # fmt: skip
    for metric, value in (("ce_clean", 3.2), ("ce_zero", 11.0)):
        made.add(own, "none", "ce", metric, value)
    if later:
        planted = {
            "model": "synthetic", "corpus": "gaussian", "layer": 0, "recipe": "none", "m": 512, "n": 4096,
            "support": "expander", "encoder": "none", "train_tokens": 0, "steps": 0,
        }  # fmt: skip
        for d in (7, 30):
            for k in (4, 64):
                for seed in SEEDS:
                    run = {**planted, "d": d, "k": k, "seed": seed}
                    for sigma in ("0", "0.01"):
                        made.add(
                            run, "omp_absolute", f"sigma{sigma}", "exact_recovery", 1.0 if k == 4 else 0.5
                        )
        for d, trained in ((7, ("omp", "block_omp_8")), (30, ("block_omp_8",))):
            for seed in SEEDS:
                run = {**PLACE, "support": "expander", "encoder": "tied", "n": N, "d": d, "k": K,
                       "train_tokens": TOKENS, "steps": STEPS, "seed": seed}  # fmt: skip
                made.add(run, "block_omp_8", "test", "relative_error", 0.4 + 0.01 * seed)
                for codes in trained:
                    made.add(run | {"codes": codes}, codes, "test", "relative_error", 0.3 + 0.01 * seed)
    return made.frame()


def curves() -> pd.DataFrame:
    """Learning curves of the expanders and the dense run."""
    rows = []
    for support, d in (("expander", 7), ("expander", 100), ("dense", M)):
        for seed in SEEDS:
            rows += [
                {**PLACE, "support": support, "encoder": "tied", "n": N, "d": d, "k": K,
                 "train_tokens": TOKENS, "steps": STEPS, "seed": seed, "step": step,
                 "loss": 100.0, "relative_error": 0.5 + 10 / step + 0.01 * seed, "silent_share": 1 / step,
                 "learning_rate": 3e-4}
                for step in (50, 100, 200)
            ]  # fmt: skip
    return completed(pd.DataFrame(rows))[list(CURVES)]


def benchmarks() -> pd.DataFrame:
    """Rows of a recorded benchmark."""
    return pd.DataFrame([
        {"file": "cpu", "task": task, "variant": variant, "m": M, "n": N, "d": d, "k": K, "B": 256,
         "dtype": "float32", "threads": 1, "ms_median": ms * d, "ms_q25": 0.9 * ms * d,
         "ms_q75": 1.1 * ms * d, "peak_mb": 20.0, "device": "a processor"}
        for task in ("encode", "omp") for variant, ms in (("dense", 3.0), ("sparse", 1.0)) for d in (7, 100)
    ])  # fmt: skip


def record(**changed: Any) -> dict[str, Any]:
    """A record of claims.json."""
    comparison = {
        "label": "d 7", "verdict": "holds", "points_to": "holds", "estimate": 0.03, "interval": [0.01, 0.05],
        "interval_family": [0.0, 0.06], "interval_deciding": [0.01, 0.05], "seeds": 10, "documents": 64,
        "spread": {"sd": 0.01, "min": 0.0, "max": 0.05, "values": {"0": 0.02, "1": 0.04}},
        "missing": [], "diverged_seeds": [], "seeds_left_out": [], "documents_left_out": 0,
    }  # fmt: skip
    return {
        "id": "frontier-ends", "setting": "smollm2", "topic": "Compression",
        "sentence": "More is recovered at the larger d.",
        "source": "a table", "statistic": "a difference", "threshold": "above 0", "verdict": "holds",
        "points_to": "holds", "descriptive": False, "level": 0.998, "level_family": 0.999,
        "estimate": 0.03, "interval": [0.01, 0.05], "interval_family": [0.0, 0.06],
        "interval_deciding": [0.01, 0.05], "seeds": 10, "documents": 64, "spread": comparison["spread"],
        "without_diverged": None,
        "comparisons": [comparison], "reason": "0.03 [0.01, 0.05] lies within above 0", **changed,
    }  # fmt: skip


def unrun(name: str) -> dict[str, Any]:
    """A record of a claim that was not run."""
    empty = {"estimate": None, "interval": None, "interval_deciding": None, "verdict": "not run",
             "points_to": "not run", "seeds": 0}  # fmt: skip
    return record(id=name, **empty, documents=0, spread=None, reason="missing: a cell",
                  comparisons=[{**record()["comparisons"][0], **empty, "spread": None}])  # fmt: skip


CLAIMS = [
    record(),
    record(id="retention", threshold="at least 0.84", verdict="fails", points_to="fails", estimate=0.7,
           interval_deciding=[0.65, 0.75]),
    record(id="omp-gain", threshold="at least 0.15 and at most 0.25", verdict="inconclusive", estimate=0.16,
           interval_deciding=[0.14, 0.18]),
    unrun("leakage"),
]  # fmt: skip
