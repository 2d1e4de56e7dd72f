"""Made-up tables under construction, and claims about them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd

from expander_sae.claims.judge import judge
from expander_sae.claims.register import parse_register
from expander_sae.measurements.document_cells import Tables

ROOT = Path(__file__).resolve().parents[2]


DOCUMENTS = 40


BASE = {
    "model": "toy", "corpus": "words", "layer": 1, "recipe": "standard", "support": "expander",
    "encoder": "tied", "m": 64, "n": 512, "d": 7, "k": 8, "train_tokens": 1000, "steps": 10, "seed": 0,
}  # fmt: skip


OWN = BASE | {"support": "none", "encoder": "none", "n": 0, "d": 0, "k": 0, "steps": 0}


CLEAN, ZERO = 3.0, 9.0


class World:
    """Tables under construction. `recovered` sets a run's CE recovered, up to document noise."""

    def __init__(self, noise=0.02, by_seed=0.003, seed=0):
        self.rng = np.random.default_rng(seed)
        self.noise, self.by_seed = noise, by_seed
        self.metrics, self.documents = [], []
        self.counts = self.rng.integers(20, 120, DOCUMENTS)
        self.hardness = 0.3 * self.rng.standard_normal(DOCUMENTS)
        for metric, level in (("ce_clean", CLEAN), ("ce_zero", ZERO), ("ce_mean_kept", 7.0)):
            self.add(OWN, "none", "ce", metric, level + self.hardness)

    def add(self, run, inference, split, metric, per_token, first=0):
        where = {**run, "inference": inference, "split": split, "metric": metric}
        for place, (value, count) in enumerate(zip(per_token, self.counts, strict=True)):
            entry = {"document": first + place, "sum": float(value * count), "count": int(count)}
            self.documents.append(where | entry)
        value = float(np.average(per_token, weights=self.counts))
        self.metrics.append(where | {"value": value})

    def value(self, run, metric, value, inference="none", split="none"):
        self.metrics.append({**run, "inference": inference, "split": split, "metric": metric, "value": value})

    def recovered(self, share, seeds=10, inference="encoder", diverged=(), **columns):
        for number in range(seeds):
            run = BASE | columns | {"seed": number}
            lost = 1 - share - self.by_seed * self.rng.standard_normal()
            noise = self.noise * self.rng.standard_normal(DOCUMENTS)
            level = ZERO + 3 if number in diverged else CLEAN + (ZERO - CLEAN) * lost
            self.add(run, inference, "ce", "ce", level + self.hardness + noise)
            self.value(run, "diverged", float(number in diverged), inference, "test")
        return self

    def error(self, level, seeds=10, inference="encoder", **columns):
        for number in range(seeds):
            run = BASE | columns | {"seed": number}
            shape = 1 + 0.1 * self.hardness + 0.01 * self.rng.standard_normal(DOCUMENTS)
            self.add(run, inference, "test", "relative_error", level * shape, first=1000)
        return self

    def frames(self):
        return pd.DataFrame(self.metrics), pd.DataFrame(self.documents)


WHERE = {name: BASE[name] for name in ("model", "corpus", "layer", "recipe", "train_tokens")}


CLAIM = {
    "id": "claim",
    "sentence": "a sentence",
    "source": "a source",
    "statistic": "a statistic",
    "test": "difference",
    "metric": "ce_recovered",
    "cells": {"expander": {"support": "expander"}, "control": {"support": "clustered_cover"}},
    "threshold": {"above": 0},
}


def register(*claims, **settings):
    data = {"settings": [{"name": "toy", "where": WHERE, "values": settings}], "draws": 400}
    return parse_register({**data, "claims": [copy.deepcopy(CLAIM) | claim for claim in claims]})


def verdict(world, claim=None, **settings):
    (found,) = judge(register(claim or {}, **settings), Tables(*world.frames()))
    return found


RETENTION = {
    "test": "retention",
    "cells": {"kept": {"support": "expander"}, "whole": {"support": "dense"}},
    "threshold": {"at_least": 0.84},
}


MONOTONE = {
    "test": "monotone",
    "over": "d",
    "values": "$all_d",
    "cells": {"cell": {"support": "expander"}},
}


OMP = {
    "test": "ratio_between",
    "of": "reduction",
    "metric": "relative_error",
    "cells": {
        "numerator": {"support": "expander", "inference": "omp"},
        "denominator": {"support": "expander", "inference": "encoder"},
    },
    "threshold": {"at_least": 0.15, "at_most": 0.25},
}
