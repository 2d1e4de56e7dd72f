# Verdicts on what the paper claims, from tables alone.


# The table of times only where somebody has asked for it: nothing else is measured twice alike.
rule claims:
    input:
        metrics="results/metrics.parquet",
        documents="results/documents.parquet",
        speed=[file for file in ["results/speed.parquet"] if Path(placed(workflow, file)).exists()],
        claims=BESIDE / "workflow" / "claims.yaml",
    output:
        "results/claims.json",
    log:
        "results/logs/claims.log",
    shell:
        called(
            "summary.py claims --log {log:q} --metrics {input.metrics:q}"
            " --documents {input.documents:q} --speed {input.speed:q} --claims {input.claims:q}"
            " --out {output:q}"
        )
