"""Keep the rows of one finished run, of a language model itself, or of synthetic trials."""

import argparse
from typing import Any

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.measurements import tables
    from expander_sae.stages import STAGE_VERSIONS
    from expander_sae.storage.files import canonical_json, read_json
    from expander_sae.study.kept_tables import superseded

    seed = None
    about: dict[str, Any] = {"stages": STAGE_VERSIONS, "from": str(options.metrics[0].parent)}
    if options.run:
        folder = options.run[0]
        record = read_json(folder / "run.json")
        seed = record["spec"]["seed"]
        kept = ("fingerprint", "mask_sha256", "finite", "torch", "device", "backend")
        about = {"stages": STAGE_VERSIONS, "run": str(folder), **{key: record[key] for key in kept}}
    text = canonical_json(about)
    tables.record(options.metrics, "metrics", seed, text, options.out[0])
    tables.record(options.documents, "documents", seed, text, options.out[1])
    if options.run:
        tables.write_curves({str(options.history[0]): record["spec"]}, options.out[2], text)
    # Rows of the same run that were asked for otherwise would count twice.
    for written in options.out:
        for older in superseded(written):
            older.unlink()


if __name__ == "__main__":
    job.run("record", main, job.arguments(lists=("run", "metrics", "documents", "history", "out")))
