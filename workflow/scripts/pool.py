"""Join the shards of a split into the raw pool that training maps into memory."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.activations.pool import build_pool

    spec = json.loads(options.spec)
    folder, split = Path(options.shards), spec["split"]
    shards = [folder / f"{split}-{index:05d}.parquet" for index in range(spec["shards"])]
    build_pool(shards, split, Path(options.data), Path(options.out), spec)


if __name__ == "__main__":
    job.run("pool", main, job.arguments("spec", "shards", "data", "out"))
