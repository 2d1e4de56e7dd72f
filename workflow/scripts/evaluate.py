"""Evaluate those runs of a cell that are not yet evaluated as asked."""

import argparse
import json
from pathlib import Path
from typing import Any

import job
import pending

from expander_sae.storage.files import sha256_file
from expander_sae.storage.seals import read_sealed_json


def main(options: argparse.Namespace) -> bool:
    from expander_sae.evaluation.runs import evaluate_run, training_documents
    from expander_sae.measurements import tables
    from expander_sae.study.run import Evaluation

    test, ce, baseline = Path(options.test), Path(options.ce), Path(options.baseline)
    train = options.train[0] if options.train else None
    spec = {Path(name): settings for name, settings in json.loads(options.spec).items()}
    shards = [read_sealed_json(pool, ("shards",), "pool manifest")["shards"] for pool in (test, ce)]
    baseline_sha256 = sha256_file(baseline)

    def inputs(settings: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"pools": shards, "baseline": baseline_sha256}
        if settings.get("train_cross_entropy", False):
            found["train"] = training_documents(train, settings["ce_sequences"])[1]
        return found

    def work(folder: Path) -> dict[str, Any]:
        return evaluate_run(
            folder,
            Evaluation.from_json(spec[folder]),
            test_pool=test,
            ce_pool=ce,
            train_pool=train,
            model_file=Path(options.model),
            baseline=baseline,
            device=job.device(),
            backend=job.backend(),
        )

    runs = [
        (folder, pending.identity_of("evaluation", folder, settings, **inputs(settings)))
        for folder, settings in spec.items()
    ]
    read = {"metrics.parquet": tables.read_metrics, "documents.parquet": tables.read_documents}
    worked = pending.measure(runs, "timings.json", read, work)
    tables.collect_metrics([folder / "metrics.parquet" for folder in spec], options.metrics)
    tables.collect_documents([folder / "documents.parquet" for folder in spec], options.documents)
    return worked


if __name__ == "__main__":
    names = ("spec", "model", "test", "ce", "baseline", "metrics", "documents")
    job.run("evaluation", main, job.arguments(*names, lists=("train",)))
