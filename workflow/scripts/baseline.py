"""Measure the cross-entropies of the language model itself: clean, zeroed, mean."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], model: Path, ce: Path, train: Path, metrics: Path, documents: Path) -> None:
    from expander_sae.evaluation.cross_entropy import write_baseline

    write_baseline(
        model,
        ce,
        train,
        spec["layer"],
        spec["columns"],
        spec["recipe_settings"],
        spec["tokens"],
        spec["sequences"],
        metrics,
        documents,
        job.device(),
        spec.get("train_cross_entropy", False),
    )


if __name__ == "__main__":
    job.run(main, "baseline")
