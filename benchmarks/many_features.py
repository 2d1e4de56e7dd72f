"""What more features bring at equal bytes, and what a million of them take (docs/howto/many_features.md).

    python -m benchmarks.many_features POOLS --json benchmarks/results/many_features.json

POOLS is the folder of train.json and test.json that a run of configs/flagship.yaml makes. Each row is trained
in a process of its own, as that configuration says; rows that the file has are not made again, and a
training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.scale import peak_mb

STEPS, K, TOKENS, PURSUED = 1500, 64, 200_000, 512
RECIPE = {"resample_every": STEPS, "bias_rate": 0.02}
SHAPES = ((4608, 112), (73728, 7), (18432, 28), (36864, 14), (1 << 20, 7), (58368, 7))
CELLS = [(n, d, seed) for seed in (0, 1) for n, d in SHAPES if n < 1 << 20 or not seed]


def row(pools: Path, n: int, d: int, seed: int) -> dict[str, Any]:
    """One training and its measurements on the test tokens: all by the encoder, some by OMP."""
    import numpy as np
    import torch

    from expander_sae.activations.pool import Pool
    from expander_sae.api import evaluate
    from expander_sae.training.trainer import Trainer

    train, test = Pool.open(pools / "train.json"), Pool.open(pools / "test.json")
    kept = pools / f"many_n{n}_d{d}_seed{seed}"
    trainer = Trainer(
        train.activations[:TOKENS],
        n=n,
        d=d,
        k=K,
        seed=seed,
        precision="int8",
        checkpoint=kept.with_suffix(".checkpoint"),
        checkpoint_every=100,
        device="cpu",
        **RECIPE,
    )
    started = time.perf_counter()
    autoencoder = trainer.fit(STEPS)
    seconds = time.perf_counter() - started
    training = peak_mb()
    weights = kept.with_suffix(".safetensors")
    autoencoder.save(weights)
    tokens = torch.from_numpy(np.array(test.activations))
    some = tokens[torch.linspace(0, len(tokens) - 1, PURSUED).long()]
    found = {name: evaluate(autoencoder, on, name) for name, on in (("encoder", tokens), ("omp", some))}
    return {
        "n": n,
        "d": d,
        "seed": seed,
        "steps": STEPS,
        "seconds": round(seconds, 1),
        "training_peak_mb": round(training),
        "peak_mb": round(peak_mb()),
        "bytes": weights.stat().st_size,
        **{f"{name}_{key}": value for name, values in found.items() for key, value in values.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pools", type=Path)
    parser.add_argument("--json", type=Path, help="file of the rows")
    parser.add_argument("--cell", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell is not None:
        print(json.dumps(row(options.pools, *CELLS[options.cell])))
        return
    rows = json.loads(options.json.read_text()) if options.json.exists() else []
    made = {(each["n"], each["d"], each["seed"]) for each in rows}
    for number, cell in enumerate(CELLS):
        if cell not in made:
            command = [sys.executable, "-m", "benchmarks.many_features", options.pools, "--cell", str(number)]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(found.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
