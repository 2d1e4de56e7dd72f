# Recovery of planted codes, which needs no model at all.


# In float64 on the CPU, whatever the device, so that every machine has the same trials.
rule synthetic:
    output:
        metrics="results/synthetic/m{m}_n{n}_d{d}-{asked}/metrics.parquet",
        documents="results/synthetic/m{m}_n{n}_d{d}-{asked}/documents.parquet",
    log:
        "results/logs/synthetic/m{m}_n{n}_d{d}-{asked}.log",
    threads: THREADS
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=60,
    params:
        spec=lambda w: canonical_json(synthetic_spec(w)),
        lineage=lineage("synthetic"),
    shell:
        "$PYTHON $SCRIPTS/synthetic.py --log {log:q} --spec {params.spec:q}"
        " --metrics {output.metrics:q} --documents {output.documents:q}"


# Named by its parts: other trials are another comparison.
rule synthetic_agreement:
    input:
        parts=synthetic_tables(),
        published=BASE / "resources" / "paper_synthetic_omp.csv",
    output:
        "results/synthetic/agreement-{asked}/metrics.parquet",
    log:
        "results/logs/synthetic/agreement-{asked}.log",
    params:
        trials=STUDY.config.get("synthetic", {}).get("trials"),
    script:
        "../scripts/agreement.py"
