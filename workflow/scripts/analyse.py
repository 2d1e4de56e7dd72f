"""Analyse those runs of a cell that are not yet analysed as asked."""

import argparse
import json
from pathlib import Path
from typing import Any

import job
import pending

from expander_sae.storage.seals import read_sealed_json

TABLE, RECORD = "analysis.parquet", "analysis.json"


def main(options: argparse.Namespace) -> bool:
    from expander_sae.evaluation.analysis import analyse_run
    from expander_sae.measurements import tables
    from expander_sae.study.run import Analysis

    test = Path(options.test)
    spec = {Path(name): settings for name, settings in json.loads(options.spec).items()}
    shards = read_sealed_json(test, ("shards",), "pool manifest")["shards"]

    def reference(settings: dict[str, Any]) -> str | None:
        if settings["reference"] is None or "novelty" not in settings["analyses"]:
            return None
        record = Path(settings["reference"]) / "run.json"
        return read_sealed_json(record, ("fingerprint",), "run record")["fingerprint"]

    def work(folder: Path) -> dict[str, Any]:
        settings = Analysis.from_json(spec[folder])
        seconds = analyse_run(folder, settings, test, folder / TABLE, job.device(), job.backend())
        return {"seconds": seconds}

    runs = [
        (
            folder,
            pending.identity_of("analysis", folder, settings, pools=[shards], reference=reference(settings)),
        )
        for folder, settings in spec.items()
    ]
    worked = pending.measure(runs, RECORD, {TABLE: tables.read_metrics}, work)
    tables.collect_metrics([folder / TABLE for folder in spec], options.out)
    return worked


if __name__ == "__main__":
    job.run("analysis", main, job.arguments("spec", "test", "out"))
