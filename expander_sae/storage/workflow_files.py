"""Where the files of the workflow lie: beside the package in a checkout, within it where it was installed.

A wheel has them as they lie in a checkout (`force-include` in pyproject.toml), since they name each other by
relative paths.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "_workflow"

ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent
"""Holds Snakefile, config.yaml, configs/, profiles/, workflow/, resources/ and benchmarks/results/."""

SNAKEFILE = str(ROOT / "Snakefile")
SCHEMAS = ROOT / "workflow" / "schemas"
CLAIMS = ROOT / "workflow" / "claims.yaml"
RESOURCES = ROOT / "resources"
BENCHMARKS = ROOT / "benchmarks" / "results"
