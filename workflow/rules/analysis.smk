# What trained runs are like beside their errors: no language model is needed.


# The seeds of a setting share a job, as in rule evaluate, whose estimate is ample for this one. The
# references are the dense runs that features are compared with.
rule analyse:
    input:
        unpack(analysis_inputs),
    output:
        "results/{cell}/{asked}/analysis.parquet",
    log:
        "results/logs/{cell}/analyse-{asked}.log",
    threads: THREADS
    resources:
        **asks(lambda w: PLAN.evaluation(cell_of(w))),
        gpu=GPUS,
    params:
        spec=quick(lambda w: canonical_json(STUDY.analyses[w.cell].spec)),
        lineage=lineage("analysis"),
    shell:
        "$PYTHON $SCRIPTS/analyse.py --log {log:q} --memory {resources.peak_mb}"
        " --spec {params.spec:q} --test {input.test:q} --out {output:q}"


# Times of this machine, never the same twice: a target of its own, and an input of no other table. Rows
# carry the columns of their runs, so that another list of runs is another table.
rule speed:
    output:
        "results/speed.parquet",
    log:
        "results/logs/speed.log",
    threads: THREADS
    params:
        spec=STUDY.speed_spec(),
    script:
        "../scripts/speed.py"
