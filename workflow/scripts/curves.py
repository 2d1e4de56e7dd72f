"""Put the learning curves of all runs together."""

from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.measurements import tables
from expander_sae.study.study import Study, load_config

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    if snakemake.params.kept:
        tables.collect_curves(snakemake.input, snakemake.output[0])
    else:
        runs = Study(load_config(snakemake.config)).runs
        tables.write_curves({f"{run.path}/training.csv": run.columns for run in runs}, snakemake.output[0])
