"""Recover planted codes by OMP at one d."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], metrics: Path, documents: Path) -> None:
    from expander_sae.evaluation.synthetic_tables import write_synthetic

    write_synthetic(spec, metrics, documents)


if __name__ == "__main__":
    job.run(main, "synthetic")
