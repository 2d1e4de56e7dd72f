# Recovery of planted codes, which needs no model at all.

# Name of a folder of trials → what their job is told.
TRIALS = {Path(folder).name: spec for folder, spec in STUDY.synthetic.items()}


# In float64 on the CPU, whatever the device, so that every machine has the same trials.
rule synthetic:
    output:
        metrics="results/synthetic/{trials}/metrics.parquet",
        documents="results/synthetic/{trials}/documents.parquet",
    log:
        "results/logs/synthetic/{trials}.log",
    wildcard_constraints:
        trials=r"m\d+_n\d+_d\d+-[0-9a-f]{12}",
    threads: THREADS
    resources:
        mem_mb=lambda w, attempt: 2000 * attempt,
        runtime=60,
    params:
        spec=of(TRIALS, "trials", canonical_json),
        lineage=lineage("synthetic"),
    shell:
        called(
            "synthetic.py --log {log:q} --spec {params.spec:q}"
            " --metrics {output.metrics:q} --documents {output.documents:q}"
        )


# Named by its parts: other trials are another comparison.
rule synthetic_agreement:
    input:
        parts=targets.synthetic(STUDY),
        published=BESIDE / "resources" / "paper_synthetic_omp.csv",
    output:
        "results/synthetic/agreement-{asked}/metrics.parquet",
    log:
        "results/logs/synthetic/agreement-{asked}.log",
    params:
        trials=STUDY.config.get("synthetic", {}).get("trials"),
    shell:
        called(
            "summary.py agreement --log {log:q} --parts {input.parts:q}"
            " --published {input.published:q} --trials {params.trials} --out {output:q}"
        )
