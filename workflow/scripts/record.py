"""Keep the rows of one finished run, of a language model itself, or of synthetic trials."""

from pathlib import Path
from typing import Any

import job


def main(
    metrics: list[Path],
    documents: list[Path],
    out: list[Path],
    run: Path | None = None,
    history: Path | None = None,
) -> None:
    from expander_sae.measurements import tables
    from expander_sae.stages import STAGE_VERSIONS
    from expander_sae.storage.files import canonical_json, read_json
    from expander_sae.study.kept_tables import superseded
    from expander_sae.study.run import LEFT_OUT, RUN_COLUMNS

    columns = None
    folder = str(metrics[0].parent).removeprefix(job.PREFIX)
    about: dict[str, Any] = {"stages": STAGE_VERSIONS, "from": folder}
    if run is not None:
        record = read_json(job.place(str(run)) / "run.json")
        columns = {name: {**LEFT_OUT, **record["spec"]}[name] for name in RUN_COLUMNS}
        # A run that was rounded or imported was trained on no device of its own.
        kept = ("fingerprint", "mask_sha256", "finite", "torch", "device", "backend")
        found = {key: record[key] for key in kept if key in record}
        about = {"stages": STAGE_VERSIONS, "run": str(run), **found}
    text = canonical_json(about)
    tables.record(metrics, "metrics", columns, text, out[0])
    tables.record(documents, "documents", columns, text, out[1])
    if run is not None:
        tables.write_curves({str(history): record["spec"]}, out[2], text)
    # Rows of the same run that were asked for otherwise would count twice.
    for written in out:
        for older in superseded(written):
            older.unlink()


if __name__ == "__main__":
    job.run(main, "record")
