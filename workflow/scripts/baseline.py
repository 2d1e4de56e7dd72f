"""Measure the cross-entropies of the language model itself: clean, zeroed, mean."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.evaluation.cross_entropy import write_baseline

    spec = json.loads(options.spec)
    write_baseline(
        Path(options.model),
        Path(options.ce),
        Path(options.train),
        spec["layer"],
        spec["columns"],
        spec["recipe_settings"],
        spec["tokens"],
        spec["sequences"],
        Path(options.metrics),
        Path(options.documents),
        job.device(),
        spec.get("train_cross_entropy", False),
    )


if __name__ == "__main__":
    job.run("baseline", main, job.arguments("spec", "model", "ce", "train", "metrics", "documents"))
