"""Draw every figure of the catalogue."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sources import sources_of

from expander_sae.errors import reported_to_user
from expander_sae.figures.write import draw_all

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    draw_all(sources_of(snakemake.input), Path(snakemake.output.pdf[0]).parent)
