"""Write the page that holds verdicts, figures, tables, configuration and provenance."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sources import sources_of

from expander_sae.errors import reported_to_user
from expander_sae.report.page import write_report
from expander_sae.storage.files import read_json

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    write_report(
        sources_of(snakemake.input),
        Path(snakemake.input.figures[0]).parent,
        Path(snakemake.input.frontier),
        read_json(snakemake.input.provenance),
        Path(snakemake.output[0]),
    )
