"""Put the tables of all runs together."""

from snakemake.script import snakemake

from expander_sae.errors import reported_to_user
from expander_sae.evaluation import tables

with reported_to_user():
    tables.collect_metrics(snakemake.input.metrics, snakemake.output.metrics)
    tables.collect_documents(snakemake.input.documents, snakemake.output.documents)
