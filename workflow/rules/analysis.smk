# What trained runs are like beside their errors: no language model is needed.


ANALYSED = {name: STUDY.measured[name] for name in STUDY.analyses}


# The runs of a job are those of rule evaluate, whose estimate is ample for this one. The
# references are the dense runs that features are compared with.
rule analyse:
    input:
        unpack(inputs_of(ANALYSED, "job", lambda job: targets.for_analysis(STUDY, job))),
    output:
        "results/{job}/{asked}/analysis.parquet",
    log:
        "results/logs/{job}/analyse-{asked}.log",
    threads: THREADS
    resources:
        **asks(of(ANALYSED, "job", PLAN.evaluation)),
        gpu=GPUS,
    params:
        spec=quick(lambda w: canonical_json(STUDY.analyses[w.job].spec)),
        lineage=lineage("analysis"),
    shell:
        "$PYTHON $SCRIPTS/analyse.py --log {log:q} --memory {resources.peak_mb}"
        " --spec {params.spec:q} --test {input.test:q} --out {output:q}"
