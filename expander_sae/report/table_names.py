"""The tables' names, for the workflow, which must not import pandas to know its outputs."""

TABLES = (
    "choice", "headline", "grid", "controls", "budgets", "pursuits", "encoders", "storage", "frontier",
    "synthetic", "published", "claims",
)  # fmt: skip
FORMATS = ("csv", "md", "tex")


def outputs(folder: str) -> list[str]:
    """The files that the tables are written to."""
    return [f"{folder}/{name}.{ending}" for name in TABLES for ending in FORMATS]
