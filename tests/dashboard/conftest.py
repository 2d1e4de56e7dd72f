"""A finished run as the workflow lays it out: tiny model, test pool, weights and metrics."""

from pathlib import Path

import numpy as np
import pytest
import torch

from expander_sae.activations.pool import build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.dashboard.collect import Limits, collect
from expander_sae.dashboard.sources import find_sources
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from tests.tiny_models import VOCABULARY, WIDTH, tiny_model_json

N, D, K, TOKENS, DOCUMENT = 40, 5, 4, 96, 12
DEAD, MASSIVE = 7, 17


def make_run(folder: Path, tokens: int = TOKENS) -> Path:
    """results/tiny/text/layer1/…/run with all that the page needs; feature 7 never fires."""
    tiny_model_json(folder / "tiny")
    layer = folder / "tiny" / "text" / "layer1"
    place = np.arange(tokens)
    draws = np.random.default_rng(0)
    activations = draws.standard_normal((tokens, WIDTH)).astype(np.float32)
    activations[MASSIVE] *= 1000
    ids = draws.integers(1, VOCABULARY, tokens).astype(np.int32)
    rows = Rows((place // DOCUMENT).astype(np.int32), (place % DOCUMENT).astype(np.int16), ids, activations)
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "test", "shard": 0}
    shard = layer / "test-00000.parquet"
    write_shard(shard, rows, {**about, "shard_tokens": tokens, "lineage": lineage("extraction")})
    build_pool([shard], "test", layer / "pool" / "test.f32", layer / "pool" / "test.json")
    run = layer / "standard" / "expander-tied" / "run"
    mask = MaskRecipe("expander", WIDTH, N, D, 0).generate()
    autoencoder = SparseAutoencoder(WIDTH, N, K, mask, "tied", "torch")
    autoencoder.initialise(torch_generator(0, "initialisation"))
    with torch.no_grad():
        autoencoder.b_enc[DEAD] = -1e6
    spec = {"model": "tiny", "corpus": "text", "layer": 1, "recipe": "standard", "support": "expander"}
    spec |= {"encoder": "tied", "m": WIDTH, "n": N, "d": D, "k": K, "seed": 0}
    spec |= {"train_tokens": tokens, "steps": 0}
    autoencoder.save(run / "weights.safetensors", spec=spec, norm_limit=100.0)
    return run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def data(run):
    return collect(find_sources(run, None, None), Limits(TOKENS, TOKENS // 2))
