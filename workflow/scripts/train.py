"""Train or import those runs of a setting that are not there yet, each from its checkpoint if it has one."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], pool: Path) -> bool:
    from expander_sae.kernels.precision import ask_for
    from expander_sae.study.run import Run
    from expander_sae.training.run_folder import RunFiles, train_runs

    def files(folder: str, told: dict[str, Any]) -> RunFiles:
        mask, parent = (job.place(told[key]) if told[key] else None for key in ("mask", "parent"))
        return RunFiles(Run.from_spec(told["spec"]), job.place(folder), mask, parent)

    if all("imported" in told for told in spec.values()):
        return imported(spec, pool)
    runs = [files(folder, told) for folder, told in spec.items()]
    device = job.device()
    if device != "cpu":
        ask_for(job.products())
    return train_runs(runs, pool, device, job.backend(), side_by_side=None)


def imported(spec: dict[str, Any], pool: Path) -> bool:
    """Import autoencoders from elsewhere, whose places a prefix does not move."""
    from expander_sae.interop.imported import ImportedFiles, import_runs
    from expander_sae.study.run import Run

    return import_runs(
        [
            ImportedFiles(Run.from_spec(told["spec"]), job.place(folder), told["imported"], told["sha256"])
            for folder, told in spec.items()
        ],
        pool,
    )


if __name__ == "__main__":
    job.run(main, "training")
