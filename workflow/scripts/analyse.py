"""Analyse those runs of a job that are not yet analysed as asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import job
import pending

from expander_sae.storage.files import sha256_file
from expander_sae.storage.seals import read_sealed_json


def main(spec: dict[str, Any], test: Path, out: Path, labels: Path | None = None) -> bool:
    from expander_sae.evaluation.analysis import analyse_run
    from expander_sae.measurements import tables
    from expander_sae.study.run import Analysis

    shards = read_sealed_json(test, ("shards",), "pool manifest")["shards"]
    table = "analysis.parquet"

    def inputs(settings: dict[str, Any]) -> dict[str, Any]:
        compared = settings["reference"] is not None and "novelty" in settings["analyses"]
        reference = pending.fingerprint(job.place(settings["reference"])) if compared else None
        found = {"pools": [shards], "reference": reference}
        if "labelled_tokens" in settings:
            found["labels"] = None if labels is None else sha256_file(labels)
        return found

    def work(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        told, out = Analysis.from_json(settings), folder / table
        if told.reference is not None:
            told = replace(told, reference=str(job.place(told.reference)))
        return {"seconds": analyse_run(folder, told, test, out, labels, job.device(), job.backend())}

    worked = pending.measure("analysis", spec, inputs, "analysis.json", {table: tables.read_metrics}, work)
    tables.collect_metrics([job.place(folder) / table for folder in spec], out)
    return worked


if __name__ == "__main__":
    job.run(main, "analysis")
