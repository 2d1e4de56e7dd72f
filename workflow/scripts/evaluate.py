"""Evaluate those runs of a cell that are not yet evaluated as asked."""

import argparse
import json
from pathlib import Path
from typing import Any

import job

from expander_sae.errors import UserError
from expander_sae.files import digest, read_json, sha256_file
from expander_sae.seals import read_sealed_json, write_sealed_json
from expander_sae.stages import lineage


def identity_of(folder: Path, settings: dict[str, Any], pools: list[Path], baseline: Path) -> str:
    """What a run's measurements depend on."""
    return digest(
        {
            "run": read_sealed_json(folder / "run.json", ("fingerprint",), "run record")["fingerprint"],
            "settings": settings,
            "pools": [read_sealed_json(pool, ("shards",), "pool manifest")["shards"] for pool in pools],
            "baseline": sha256_file(baseline),
            "lineage": lineage("evaluation"),
        }
    )


def is_done(folder: Path, identity: str) -> bool:
    """Whether both tables are there, readable, and were measured under this identity."""
    from expander_sae.evaluation import tables

    try:
        tables.read_metrics(folder / "metrics.parquet")
        tables.read_documents(folder / "documents.parquet")
        return read_sealed_json(folder / "timings.json", (), "record of times").get("identity") == identity
    except UserError:
        return False


def main(options: argparse.Namespace) -> bool:
    from expander_sae.evaluation import tables
    from expander_sae.evaluation.runs import evaluate_run

    test, ce, baseline = Path(options.test), Path(options.ce), Path(options.baseline)
    spec = {Path(name): settings for name, settings in json.loads(options.spec).items()}
    worked = False
    for folder, settings in spec.items():
        identity = identity_of(folder, settings, [test, ce], baseline)
        if is_done(folder, identity):
            continue
        worked = True
        timings = folder / "timings.json"
        evaluate_run(
            folder,
            settings,
            test,
            ce,
            Path(options.model),
            baseline,
            folder / "metrics.parquet",
            folder / "documents.parquet",
            timings,
            job.device(),
            job.backend(),
        )
        # Last: a job that is killed before this does the run again.
        write_sealed_json(timings, {**read_json(timings), "identity": identity})
    tables.collect_metrics([folder / "metrics.parquet" for folder in spec], options.metrics)
    tables.collect_documents([folder / "documents.parquet" for folder in spec], options.documents)
    return worked


if __name__ == "__main__":
    names = ("spec", "model", "test", "ce", "baseline", "metrics", "documents")
    job.run("evaluation", main, job.arguments(*names))
