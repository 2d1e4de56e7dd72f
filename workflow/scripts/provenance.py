"""Record what made the results."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.machine import provenance
from expander_sae.measurements import tables
from expander_sae.storage.files import write_json
from expander_sae.study.study import Study, load_config

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    study = Study(load_config(snakemake.config))
    record = provenance.record(
        study.config,
        tables.read_timings(snakemake.input.timings),
        Path(snakemake.scriptdir).parents[1],
        provenance.inputs(Path(snakemake.output[0]).parent, study.models, study.corpus),
        study.left_out,
    )
    write_json(snakemake.output[0], record)
