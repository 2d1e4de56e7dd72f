# The seeds of a setting share a job, which trains those that are not yet trained: a run's folder
# holds its weights and their fingerprint. Half as many jobs plan in half the time, and a new seed
# trains that seed only. The pool is ancient: it grows at its end, and the fingerprint holds a
# checksum of the tokens that the run uses.


rule train:
    input:
        unpack(training_inputs),
    output:
        update("results/{cell}/runs.json"),
    log:
        "results/logs/{cell}/train.log",
    threads: THREADS
    resources:
        mem_mb=2500,
        runtime=120,
        gpu=GPUS,
    params:
        spec=lambda w: canonical_json(STUDY.training_spec(w.cell)),
        lineage=lineage("training"),
    shell:
        "$PYTHON $SCRIPTS/train.py --log {log:q} --spec {params.spec:q} --pool {input.pool:q}"
        " --masks {input.masks:q} --out {output:q}"
