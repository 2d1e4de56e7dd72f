# What trained runs are like beside their errors: no language model is needed.


# The seeds of a setting share a job, as in rule evaluate, whose estimate is ample for this one. The
# references are the dense runs that features are compared with.
rule analyse:
    input:
        unpack(inputs_of(STUDY.cells, "cell", lambda cell: targets.for_analysis(STUDY, cell))),
    output:
        "results/{cell}/{asked}/analysis.parquet",
    log:
        "results/logs/{cell}/analyse-{asked}.log",
    threads: THREADS
    resources:
        **asks(of(STUDY.cells, "cell", PLAN.evaluation)),
        gpu=GPUS,
    params:
        spec=quick(lambda w: canonical_json(STUDY.analysis_spec(w.cell))),
        lineage=lineage("analysis"),
    shell:
        "$PYTHON $SCRIPTS/analyse.py --log {log:q} --memory {resources.peak_mb}"
        " --spec {params.spec:q} --test {input.test:q} --out {output:q}"
