"""Evaluate those runs of a job that are not yet evaluated as asked."""

from pathlib import Path
from typing import Any

import job
import pending

from expander_sae.storage.files import sha256_file
from expander_sae.storage.seals import read_sealed_json


def main(
    spec: dict[str, Any],
    model: Path,
    test: Path,
    ce: Path,
    baseline: Path,
    metrics: Path,
    documents: Path,
    train: Path | None = None,
) -> bool:
    from expander_sae.evaluation.runs import evaluate_run, training_documents
    from expander_sae.measurements import tables
    from expander_sae.study.run import Evaluation

    shards = [read_sealed_json(pool, ("shards",), "pool manifest")["shards"] for pool in (test, ce)]
    always = {"pools": shards, "baseline": sha256_file(baseline)}

    def inputs(settings: dict[str, Any]) -> dict[str, Any]:
        if not settings.get("train_cross_entropy", False):
            return always
        return always | {"train": training_documents(train, settings["ce_sequences"])[1]}

    def work(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        return evaluate_run(
            folder,
            Evaluation.from_json(settings),
            test_pool=test,
            ce_pool=ce,
            train_pool=train,
            model_file=model,
            baseline=baseline,
            device=job.device(),
            backend=job.backend(),
        )

    read = {"metrics.parquet": tables.read_metrics, "documents.parquet": tables.read_documents}
    worked = pending.measure("evaluation", spec, inputs, "timings.json", read, work)
    tables.collect_metrics([job.place(folder) / "metrics.parquet" for folder in spec], metrics)
    tables.collect_documents([job.place(folder) / "documents.parquet" for folder in spec], documents)
    return worked


if __name__ == "__main__":
    job.run(main, "evaluation")
