# Measurements: of the language model itself, and of the trained runs.


rule baseline:
    input:
        model="results/{model}/model.json",
        ce=ancient("results/{model}/{corpus}/layer{layer}/pool/ce.json"),
        train=ancient("results/{model}/{corpus}/layer{layer}/pool/train.json"),
    output:
        metrics="results/{model}/{corpus}/layer{layer}/baseline/{recipe}_t{tokens}-{asked}/metrics.parquet",
        documents="results/{model}/{corpus}/layer{layer}/baseline/{recipe}_t{tokens}-{asked}/documents.parquet",
    log:
        "results/logs/{model}/{corpus}/layer{layer}/baseline_{recipe}_t{tokens}-{asked}.log",
    threads: THREADS
    resources:
        **asks(lambda w: PLAN.baseline(STUDY.models[w.model], int(w.layer))),
        gpu=GPUS,
    params:
        spec=lambda w: canonical_json(STUDY.baselines[w.model, int(w.layer), int(w.tokens)].spec),
        lineage=lineage("evaluation"),
    shell:
        called(
            "baseline.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --model {input.model:q}"
            " --ce {input.ce:q} --train {input.train:q}"
            " --metrics {output.metrics:q} --documents {output.documents:q}"
        )


# The seeds of a cell share a job, or those of several cells, which measures the runs that are not yet
# measured as asked. Each run's tables stay in its folder; the job's own are those of its runs together, in
# a folder named by what is asked of them: changed settings are then missing files and not a params trigger,
# which Snakemake does not look at while an ancient input is itself about to be made.
rule evaluate:
    input:
        unpack(inputs_of(STUDY.measured, "job", lambda job: targets.for_evaluation(STUDY, job))),
    output:
        metrics="results/{job}/{asked}/metrics.parquet",
        documents="results/{job}/{asked}/documents.parquet",
    log:
        "results/logs/{job}/evaluate-{asked}.log",
    priority: 1  # before analyses, which are shorter
    threads: THREADS
    resources:
        **asks(of(STUDY.measured, "job", PLAN.evaluation)),
        gpu=GPUS,
    params:
        spec=quick(lambda w: canonical_json(STUDY.evaluations[w.job].spec)),
        # Only where a run is also measured on its training documents.
        train=quick(
            lambda w, input: (
                shlex.join(["--train", input.train]) if "train" in input.keys() else ""
            )
        ),
        lineage=lineage("evaluation"),
    shell:
        called(
            "evaluate.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q}"
            " --model {input.model:q} --test {input.test:q} --ce {input.ce:q} --baseline {input.baseline:q}"
            " {params.train} --metrics {output.metrics:q} --documents {output.documents:q}"
        )
