"""Write every table as CSV, Markdown and LaTeX."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sources import sources_of

from expander_sae.errors import reported_to_user
from expander_sae.report.tables import write_tables

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    write_tables(sources_of(snakemake.input), Path(snakemake.output.csv[0]).parent)
