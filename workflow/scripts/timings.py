"""Put together what every job cost: the records lie beside the log files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.measurements import tables
from expander_sae.storage.files import read_json

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    folder = Path(snakemake.log[0]).parent
    records = [read_json(path) for path in sorted(folder.rglob("*.json"))]
    tables.write_timings(records, snakemake.output[0])
