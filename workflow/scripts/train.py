"""Train those runs of a setting that are not yet trained, each from its checkpoint if it has one."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> bool:
    from expander_sae.machine.allocator import keep_freed_memory
    from expander_sae.training.run_folder import train_run

    keep_freed_memory()
    worked = False
    for folder, told in json.loads(options.spec).items():
        mask, parent = (Path(told[key]) if told[key] else None for key in ("mask", "parent"))
        pool, device, backend = Path(options.pool), job.device(), job.backend()
        worked |= train_run(told["spec"], pool, mask, Path(folder), device, backend, parent=parent)
    return worked


if __name__ == "__main__":
    job.run("training", main, job.arguments("spec", "pool"))
