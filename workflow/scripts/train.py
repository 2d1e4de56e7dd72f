"""Train those runs of a setting that are not yet trained, each from its checkpoint if it has one."""

import argparse
import json
from pathlib import Path
from typing import Any

import job


def main(options: argparse.Namespace) -> bool:
    from expander_sae.machine.allocator import keep_freed_memory
    from expander_sae.study.run import Run
    from expander_sae.training.run_folder import RunFiles, train_runs

    def files(folder: str, told: dict[str, Any]) -> RunFiles:
        mask, parent = (Path(told[key]) if told[key] else None for key in ("mask", "parent"))
        return RunFiles(Run.from_spec(told["spec"]), Path(folder), mask, parent)

    keep_freed_memory()
    runs = [files(folder, told) for folder, told in json.loads(options.spec).items()]
    return train_runs(runs, Path(options.pool), job.device(), job.backend())


if __name__ == "__main__":
    job.run("training", main, job.arguments("spec", "pool"))
