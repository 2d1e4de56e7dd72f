# One autoencoder a job. The pool is ancient: it grows at its end, and the run's fingerprint holds a
# checksum of the tokens that this run uses.


rule train:
    input:
        unpack(training_inputs),
    output:
        weights="results/{cell}_seed{seed}/weights.safetensors",
        record="results/{cell}_seed{seed}/run.json",
        history="results/{cell}_seed{seed}/training.csv",
    log:
        "results/logs/{cell}_seed{seed}/train.log",
    threads: THREADS
    resources:
        **asks(lambda w: PLAN.training(run_of(w))),
        gpu=GPUS,
    params:
        spec=lambda w: canonical_json(run_of(w).train_spec()),
        lineage=lineage("training"),
    shell:
        "$PYTHON $SCRIPTS/train.py --log {log:q} --memory {resources.peak_mb}"
        " --spec {params.spec:q} --pool {input.pool:q}"
        " --mask {input.mask:q} --out {output.weights:q}"
