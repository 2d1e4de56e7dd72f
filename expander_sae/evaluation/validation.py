"""How well a run rebuilds tokens of the validation split, on which recipes are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expander_sae.activations.pool import Pool
from expander_sae.activations.splits import VALIDATION
from expander_sae.errors import UserError
from expander_sae.evaluation.reconstruction import measure
from expander_sae.evaluation.trained import is_finite, load_trained
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.pursuit.inference import inferences

TABLE = "validation.parquet"


def validate_run(
    folder: Path, asked: dict[str, Any], pool_file: Path, device: str = "cpu", backend: str = "auto"
) -> None:
    """Write the table TABLE of a run: reconstruction on the first tokens of the validation pool.

    Args:
        asked: `inference`, names of the ways to find codes; `tokens`, how many.

    Raises:
        UserError: the pool is of another split or has fewer tokens.
    """
    pool, tokens = Pool.open(pool_file), asked["tokens"]
    if pool.record["split"] != VALIDATION:
        raise UserError(f"{pool_file}: found split {pool.record['split']!r}, expected {VALIDATION!r}")
    if pool.tokens < tokens:
        raise UserError(f"{pool_file}: {pool.tokens} tokens, expected at least {tokens}")
    autoencoder, run = load_trained(folder, device, backend)
    rows = Rows(run.columns)
    diverged = not is_finite(autoencoder)
    for name in asked["inference"]:
        if not diverged:
            encoded = encoded_rows(autoencoder, pool.activations[:tokens], pool.path, pool.norms[:tokens])
            summary = measure(autoencoder, pool.activations, inferences(name), encoded)[0].summary()
            rows.add(name, VALIDATION, summary)
            diverged |= not summary["relative_error"] <= 1
        rows.add(name, VALIDATION, {"diverged": float(diverged)})
    tables.write_metrics(rows.metrics, folder / TABLE)
