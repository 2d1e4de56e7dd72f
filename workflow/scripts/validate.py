"""Measure the runs of a cell on the validation split, those that are not yet measured as asked."""

from pathlib import Path
from typing import Any

import job
import pending

from expander_sae.storage.seals import read_sealed_json


def main(spec: dict[str, Any], pool: Path, out: Path) -> bool:
    from expander_sae.evaluation.validation import TABLE, validate_run
    from expander_sae.measurements import tables

    shards = read_sealed_json(pool, ("shards",), "pool manifest")["shards"]

    def work(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
        validate_run(folder, asked, pool, job.device(), job.backend())
        return {}

    read = {TABLE: tables.read_metrics}
    worked = pending.measure("evaluation", spec, lambda _: {"pools": [shards]}, "validation.json", read, work)
    tables.collect_metrics([job.place(folder) / TABLE for folder in spec], out)
    return worked


if __name__ == "__main__":
    job.run(main, "evaluation")
