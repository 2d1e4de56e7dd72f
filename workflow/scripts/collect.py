"""Put the tables of all runs together."""

from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.measurements import tables

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    tables.collect_metrics(snakemake.input.metrics, snakemake.output.metrics)
    tables.collect_documents(snakemake.input.documents, snakemake.output.documents)
