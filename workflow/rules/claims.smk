# Verdicts on what the paper claims, from tables alone.


rule claims:
    input:
        metrics="results/metrics.parquet",
        documents="results/documents.parquet",
        speed=lambda w: timed(),
        claims=BASE / "workflow" / "claims.yaml",
    output:
        "results/claims.json",
    log:
        "results/logs/claims.log",
    script:
        "../scripts/claims.py"
