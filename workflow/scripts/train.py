"""Train those runs of a setting that are not yet trained, each from its checkpoint if it has one."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], pool: Path) -> bool:
    from expander_sae.machine.allocator import keep_freed_memory
    from expander_sae.training.run_folder import train_run

    keep_freed_memory()
    worked = False
    for folder, told in spec.items():
        mask, parent = (Path(told[key]) if told[key] else None for key in ("mask", "parent"))
        device, backend = job.device(), job.backend()
        worked |= train_run(told["spec"], pool, mask, Path(folder), device, backend, parent=parent)
    return worked


if __name__ == "__main__":
    job.run(main, "training")
