"""What the figures, the tables and the report read: the same inputs under the same names."""

from __future__ import annotations

from typing import Any

from expander_sae.figures.sources import Sources, load


def sources_of(inputs: Any) -> Sources:
    """Load the inputs of `figure_inputs` in workflow/rules/report.smk."""
    return load(
        inputs.metrics,
        inputs.published,
        inputs.synthetic,
        inputs.curves or None,
        inputs.claims,
        [inputs.benchmarks] if isinstance(inputs.benchmarks, str) else inputs.benchmarks,
        inputs.documents,
    )
