"""Record what made the results."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae import provenance
from expander_sae.errors import reported_to_user
from expander_sae.evaluation import tables
from expander_sae.files import write_json
from expander_sae.seals import read_sealed_json
from expander_sae.study import Study, load_config

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    study = Study(load_config(snakemake.config))
    inputs = {}
    for label in study.models:
        results = Path(snakemake.output[0]).parent / label
        inputs[label] = {
            "model": read_sealed_json(results / "model.json", (), "model record"),
            "corpus": read_sealed_json(results / study.corpus / "corpus.json", (), "corpus record"),
        }
    record = provenance.record(
        study.config,
        tables.read_timings(snakemake.input.timings),
        Path(snakemake.scriptdir).parents[1],
        inputs,
        study.left_out,
    )
    write_json(snakemake.output[0], record)
