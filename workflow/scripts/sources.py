"""What the figures, the tables and the report read: the same inputs under the same names."""

from __future__ import annotations

from typing import Any

from expander_sae.measurements.results import Results, read_results


def sources_of(inputs: Any) -> Results:
    """Read the inputs of `figure_inputs` in workflow/rules/report_inputs.smk."""
    return read_results(
        inputs.metrics,
        inputs.published,
        inputs.synthetic,
        inputs.curves or None,
        inputs.claims,
        [inputs.benchmarks] if isinstance(inputs.benchmarks, str) else inputs.benchmarks,
        inputs.documents,
    )
