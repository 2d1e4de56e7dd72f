"""Measure the cross-entropies of the language model itself: clean, zeroed, mean."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], model: Path, ce: Path, train: Path, metrics: Path, documents: Path) -> None:
    from expander_sae.evaluation.cross_entropy import write_baseline
    from expander_sae.study.run import Run

    write_baseline(
        Run.from_spec({**spec["columns"], "recipe_settings": spec["recipe_settings"]}),
        spec["sequences"],
        model_file=model,
        ce_pool=ce,
        train_pool=train,
        out_metrics=metrics,
        out_documents=documents,
        train_cross_entropy=spec.get("train_cross_entropy", False),
        device=job.device(),
    )


if __name__ == "__main__":
    job.run(main, "baseline")
