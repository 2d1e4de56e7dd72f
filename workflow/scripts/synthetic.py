"""Recover planted codes by OMP at one d."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.evaluation.synthetic_tables import write_synthetic

    write_synthetic(json.loads(options.spec), Path(options.metrics), Path(options.documents))


if __name__ == "__main__":
    job.run("synthetic", main, job.arguments("spec", "metrics", "documents"))
