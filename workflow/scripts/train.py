"""Train one autoencoder, continuing from its checkpoint where there is one."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.runs import train_run

    mask = options.mask[0] if options.mask else None
    folder = Path(options.out).parent
    spec = json.loads(options.spec)
    train_run(spec, Path(options.pool), mask, folder, job.device(), job.backend())


if __name__ == "__main__":
    job.run("training", main, job.arguments("spec", "pool", "out", lists=("mask",)))
