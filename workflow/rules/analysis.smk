# What trained runs are like beside their errors: no language model is needed.


ANALYSED = {name: STUDY.cells[name] for name in STUDY.analyses}


# The seeds of a cell share a job, as in rule evaluate, whose estimate is ample for this one. The
# references are the dense runs that features are compared with.
rule analyse:
    input:
        unpack(inputs_of(ANALYSED, "cell", lambda cell: targets.for_analysis(STUDY, cell))),
    output:
        "results/{cell}/{asked}/analysis.parquet",
    log:
        "results/logs/{cell}/analyse-{asked}.log",
    threads: THREADS
    resources:
        **asks(of(STUDY.cells, "cell", PLAN.evaluation)),
        gpu=GPUS,
    params:
        spec=quick(lambda w: canonical_json(STUDY.analyses[w.cell].spec)),
        lineage=lineage("analysis"),
    shell:
        "$PYTHON $SCRIPTS/analyse.py --log {log:q} --memory {resources.peak_mb}"
        " --spec {params.spec:q} --test {input.test:q} --out {output:q}"
