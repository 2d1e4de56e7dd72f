# What claims, figures, tables and the report read.


def optional(name):
    """The table of the rule of this name, where the workflow has one."""
    return [f"results/{name}.parquet"] if workflow.is_rule(name) else []


def figure_inputs(wildcards):
    """What figures, tables and the report are made from."""
    return {
        "metrics": "results/metrics.parquet",
        "documents": "results/documents.parquet",
        "claims": "results/claims.json",
        "curves": optional("curves"),
        "published": BASE / "resources" / "paper_figures.csv",
        "synthetic": BASE / "resources" / "paper_synthetic_omp.csv",
        "benchmarks": sorted((BASE / "benchmarks" / "results").glob("*.json")),
    }
