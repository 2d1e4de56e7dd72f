"""Measure the cross-entropies of the language model itself: clean, zeroed, mean."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.evaluation.cross_entropy import write_baseline

    write_baseline(
        json.loads(options.spec),
        Path(options.model),
        Path(options.ce),
        Path(options.train),
        Path(options.metrics),
        Path(options.documents),
        job.device(),
    )


if __name__ == "__main__":
    job.run("baseline", main, job.arguments("spec", "model", "ce", "train", "metrics", "documents"))
