"""Draw the storage-fidelity frontier."""

from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.figures.write import draw_frontier
from expander_sae.measurements.results import read_results

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    results = read_results(snakemake.input.metrics, snakemake.input.published)
    draw_frontier(results, snakemake.output.pdf, snakemake.output.png)
