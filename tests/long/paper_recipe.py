"""The published recipe at full length on real activations, sparse path against dense reference.

    python -m tests.long.paper_recipe --pool results/…/layer15/pool/train.json --d 30 --out FILE.json

Both sides run in float64 from the same initialisation and batch order: 5,000 steps, batch 256,
resampling every 1,000 steps. The dense side is the test suite's own reference and holds m×n
matrices: expect about half an hour on two cores for m=576, n=4608.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.pool import Pool
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.storage.files import write_json
from expander_sae.study.recipes import RECIPES
from expander_sae.training.normalisation import KeptTokens, normalisation
from expander_sae.training.session import Session
from tests import dense_reference


class Batches:
    """The batches of seed 0, drawn afresh at each iteration."""

    def __init__(self, activations: np.ndarray, steps: int, size: int) -> None:
        self.activations, self.steps, self.size = activations, steps, size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = torch_generator(0, "batches")
        for _ in range(self.steps):
            positions = torch.randint(len(self.activations), (self.size,), generator=order)
            yield torch.from_numpy(self.activations[positions.numpy()]).double()


def relative_error(rebuilt: torch.Tensor, h: torch.Tensor) -> float:
    return float(((h - rebuilt).norm(dim=1) / h.norm(dim=1)).mean())


def compare(pool: Pool, d: int, n: int, k: int, steps: int) -> dict[str, Any]:
    recipe = RECIPES["paper"]
    mask = MaskRecipe("expander", pool.m, n, d, 0).generate()
    autoencoder = SparseAutoencoder(pool.m, n, k, mask, "tied", dtype=torch.float64)
    scaling = normalisation(pool, pool.tokens, recipe)
    tokens = KeptTokens(torch.from_numpy(pool.activations), scaling, dtype=torch.float64)
    session = Session(tokens, recipe, steps)
    training = session.start(autoencoder, seed=0)
    support = dense_reference.dense_mask(mask.rows, mask.degrees, pool.m)
    v = dense_reference.to_dense(autoencoder.values.detach(), mask.rows, mask.degrees, pool.m)
    batches = Batches(pool.activations, steps, recipe.batch_size)
    began = time.perf_counter()
    session.train([training])
    sparse_seconds = time.perf_counter() - began
    began = time.perf_counter()
    expected = dense_reference.train(
        support,
        v,
        batches,
        k,
        d,
        recipe.resample_every,
        torch_generator(0, "resampling"),  # type: ignore[arg-type]
    )
    dense_seconds = time.perf_counter() - began
    got = dense_reference.to_dense(autoencoder.values.detach(), mask.rows, mask.degrees, pool.m)
    h = torch.from_numpy(pool.activations[:4096]).double()
    with torch.no_grad():
        dense_output, _ = dense_reference.forward(
            support, expected["v"], None, expected["b_enc"], expected["b_dec"], h, k
        )
        sparse_output = autoencoder.decode(autoencoder.encode(h))
    return {
        "m": pool.m,
        "n": n,
        "d": d,
        "k": k,
        "steps": steps,
        "finite": training.state.finite,
        "largest_difference": {
            "values": float((got - support * expected["v"]).abs().max()),
            "b_enc": float((autoencoder.b_enc.detach() - expected["b_enc"]).abs().max()),
            "b_dec": float((autoencoder.b_dec.detach() - expected["b_dec"]).abs().max()),
        },
        "largest_value": float(got.abs().max()),
        "relative_error": {
            "sparse": relative_error(sparse_output, h),
            "dense": relative_error(dense_output, h),
        },
        "seconds": {"sparse": round(sparse_seconds, 1), "dense": round(dense_seconds, 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True, help="train.json of an activation pool")
    parser.add_argument("--d", type=int, required=True)
    parser.add_argument("--n", type=int, help="features; 8·m if left out")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pool = Pool.open(options.pool)
    write_json(options.out, compare(pool, options.d, options.n or 8 * pool.m, options.k, options.steps))


if __name__ == "__main__":
    main()
