"""Version of each stage's results.

Raise a number when that stage would write other results for the same settings: its outputs and
everything after it are then made again. Golden-value tests guard against forgetting.

One change did not raise `training`: since 27 November 2026 columns of one entry keep still. Before, they
moved by rounding errors, so that no machine wrote the results of another (CHANGELOG.md).
"""

from __future__ import annotations

STAGE_VERSIONS: dict[str, int] = {
    "model": 1,
    "corpus": 1,
    "labels": 1,
    "extraction": 1,
    "pool": 1,
    "mask": 1,
    "training": 1,
    "evaluation": 2,
    "analysis": 2,
    "synthetic": 1,
}

_UPSTREAM: dict[str, tuple[str, ...]] = {
    "model": (),
    "corpus": ("model",),
    "labels": ("corpus",),
    "extraction": ("corpus",),
    "pool": ("extraction",),
    "mask": (),
    "training": ("pool", "mask"),
    "evaluation": ("training",),
    "analysis": ("training",),
    "synthetic": ("mask",),
}


def lineage(stage: str) -> str:
    """The versions that a stage's results depend on, e.g. ``corpus1-extraction1-model1-pool1``."""
    return "-".join(f"{name}{STAGE_VERSIONS[name]}" for name in sorted(_needed(stage)))


def _needed(stage: str) -> set[str]:
    return {stage}.union(*map(_needed, _UPSTREAM[stage]))
