"""Compare the recovery of planted codes with the published table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.evaluation.synthetic_tables import write_agreement

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    write_agreement(
        [Path(part) for part in snakemake.input.parts],
        Path(snakemake.input.published),
        snakemake.params.trials,
        Path(snakemake.output[0]),
    )
