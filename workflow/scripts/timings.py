"""Put together what every job cost: the records lie beside the log files."""

from pathlib import Path

from snakemake.script import snakemake

from expander_sae.errors import reported_to_user
from expander_sae.evaluation import tables
from expander_sae.files import read_json

with reported_to_user():
    folder = Path(snakemake.log[0]).parent
    records = [read_json(path) for path in sorted(folder.rglob("*.json"))]
    tables.write_timings(records, snakemake.output[0])
