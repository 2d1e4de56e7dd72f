"""Put the tables of all runs together."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import UserError, reported_to_user
from expander_sae.evaluation import tables
from expander_sae.files import digest, read_json
from expander_sae.stages import lineage
from expander_sae.study import Study, load_config

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    study = Study(load_config(snakemake.config))
    for cell in study.cells:
        record = Path(f"results/{cell}/evaluation.json")
        # A job is not planned again for changed settings while something before it is: Snakemake
        # looks at either, so this takes a second call.
        if read_json(record)["asked"] != digest([study.evaluation_spec(cell), lineage("evaluation")]):
            raise UserError(f"{record}: measured for other settings; run the same command again")
    tables.collect_metrics(snakemake.input.metrics, snakemake.output.metrics)
    tables.collect_documents(snakemake.input.documents, snakemake.output.documents)
