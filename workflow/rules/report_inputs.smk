# What claims, figures, tables and the report read.


def timed():
    """The table of times, where somebody has asked for it: nothing else is measured twice alike."""
    return [path for path in ["results/speed.parquet"] if Path(path).exists()]


def figure_inputs(wildcards):
    """What figures, tables and the report are made from."""
    return {
        "metrics": "results/metrics.parquet",
        "documents": "results/documents.parquet",
        "claims": "results/claims.json",
        "curves": "results/curves.parquet",
        "published": BASE / "resources" / "paper_figures.csv",
        "synthetic": BASE / "resources" / "paper_synthetic_omp.csv",
        "benchmarks": sorted((BASE / "benchmarks" / "results").glob("*.json")),
    }
