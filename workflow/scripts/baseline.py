"""Measure the cross-entropies of the language model itself: clean, zeroed, mean."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], model: Path, ce: Path, train: Path, metrics: Path, documents: Path) -> None:
    from expander_sae.evaluation.cross_entropy import write_baseline

    write_baseline(spec, model, ce, train, metrics, documents, job.device())


if __name__ == "__main__":
    job.run(main, "baseline")
