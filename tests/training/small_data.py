"""Activations to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from expander_sae.rng import Integers, torch_generator
from expander_sae.stages import lineage

M, TOKENS = 8, 200


def activations() -> np.ndarray:
    """float32 [TOKENS, M] of whole numbers: the same bytes, and so the same fingerprints, on every machine.

    Every fiftieth token is massive.
    """
    values = Integers(0, "pool").below(401, TOKENS * M).reshape(TOKENS, M).astype("f4") - 180
    values[::50] *= 500
    return values


def write_pool(folder: Path) -> Path:
    """The manifest of a pool of `activations`, in `folder`."""
    # Not above: a machine with a GPU that runs the tests of training alone has no pyarrow.
    from expander_sae.activations.pool import build_pool
    from expander_sae.activations.shards import Rows, write_shard

    token = np.arange(TOKENS)
    rows = Rows((token // 8).astype("i4"), (token % 8).astype("i2"), token.astype("i4"), activations())
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": 0}
    about |= {"shard_tokens": TOKENS, "lineage": lineage("extraction")}
    write_shard(folder / "shard.parquet", rows, about)
    build_pool([folder / "shard.parquet"], "train", folder / "train.f32", folder / "train.json", {})
    return folder / "train.json"


def few_directions(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """[2000, 24] with a few strong directions, so that features die and are re-aimed."""
    generator = torch_generator(1, "pool")
    factors = torch.randn(6, 24, generator=generator, dtype=torch.float64)
    codes = torch.randn(2000, 6, generator=generator, dtype=torch.float64).relu()
    noise = 0.1 * torch.randn(2000, 24, generator=generator, dtype=torch.float64)
    return (codes @ factors + noise).to(dtype)
