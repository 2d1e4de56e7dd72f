"""A pool of made-up activations on disk, and autoencoders on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.label_table import write_table
from expander_sae.activations.pool import build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from expander_sae.storage.files import write_json
from expander_sae.study.recipes import RECIPES

M, N, K, TOKENS, LIMIT = 16, 64, 4, 300, 100.0


def write_pool(folder: Path, split: str = "test") -> Path:
    """300 tokens in documents of ten; every 50th has a norm beyond LIMIT. Returns the manifest."""
    values = torch.randn(TOKENS, M, generator=torch_generator(0, f"pool {split}")).numpy()
    values[::50] *= 500
    token = np.arange(TOKENS)
    ids = (token * 7 % 11).astype("i4")
    rows = Rows((token // 10).astype("i4"), (token % 10).astype("i2"), ids, values)
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": split, "shard": 0}
    about |= {"shard_tokens": TOKENS, "lineage": lineage("extraction")}
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / f"{split}-00000.parquet", rows, about)
    out = folder / f"{split}.json"
    build_pool([folder / f"{split}-00000.parquet"], split, folder / f"{split}.f32", out, {})
    return out


def write_label_table(pool: Path, out: Path | None = None, shift: int = 0) -> Path:
    """Made-up labels of the pool's tokens, beside it; `shift` is added to their ids."""
    token, out = np.arange(TOKENS), out or pool.with_name("labels.parquet")
    texts = {
        "text": [f"t{one}" for one in token * 7 % 11],
        "kind": [("word", "blank", "digits")[one % 3] for one in token],
        "place": ["document_start" if one % 10 < 2 else None for one in token],
        "origin": [("first", "second", "third")[one // 10 % 3] for one in token],
        "user": [None] * TOKENS,
    }
    write_table(out, token // 10, token % 10, token * 7 % 11 + shift, texts)
    return out


def write_run(folder: Path, family: str = "expander", seed: int = 0, **broken: float) -> SparseAutoencoder:
    """An untrained run on disk: weights and run.json. broken: a value to plant in a parameter."""
    mask = None if family == "dense" else MaskRecipe(family, M, N, 5, seed).generate()
    made = SparseAutoencoder(M, N, K, mask, backend="torch")
    made.initialise(torch_generator(seed, "initialisation"))
    with torch.no_grad():
        made.b_dec.normal_(generator=torch_generator(seed, "b_dec"))
        made.b_enc[:3] = -1000.0
        for name, value in broken.items():
            getattr(made, name).view(-1)[0] = value
    spec: dict[str, Any] = {"model": "tiny", "corpus": "text", "layer": 1, "recipe": "standard"}
    spec |= {"support": family, "encoder": "tied", "m": M, "n": N, "d": made.d, "k": K}
    spec |= {"train_tokens": TOKENS, "steps": 1, "seed": seed}
    spec |= {"recipe_settings": asdict(RECIPES["standard"])}
    about = {
        "spec": spec,
        "fingerprint": f"{family}{seed}{sorted(broken)}",
        "norm_limit": LIMIT,
        "scale": 1.0,
    }
    made.save(folder / "weights.safetensors", **about)
    write_json(folder / "run.json", about)
    return made
