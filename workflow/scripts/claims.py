"""Judge the claims of workflow/claims.yaml."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.claims.judge import write_claims
from expander_sae.errors import reported_to_user

if TYPE_CHECKING:
    snakemake: Any

speed = snakemake.input.get("speed") or []

with reported_to_user():
    write_claims(
        Path(snakemake.input.metrics),
        Path(snakemake.input.documents),
        Path(snakemake.input.claims),
        Path(snakemake.output[0]),
        Path(speed if isinstance(speed, str) else speed[0]) if speed else None,
    )
