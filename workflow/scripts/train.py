"""Train one run, from its checkpoint if it has one."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> bool:
    from expander_sae.runs import train_run

    mask = options.mask[0] if options.mask else None
    folder = Path(options.out).parent
    return train_run(json.loads(options.spec), Path(options.pool), mask, folder, job.device(), job.backend())


if __name__ == "__main__":
    job.run("training", main, job.arguments("spec", "pool", "out", lists=("mask",)))
