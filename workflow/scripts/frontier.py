"""Draw the storage-fidelity frontier."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.figures.frontier import draw

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    draw(
        Path(snakemake.input.metrics),
        Path(snakemake.input.published),
        Path(snakemake.output.pdf),
        Path(snakemake.output.png),
    )
