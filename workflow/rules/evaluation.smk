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
        **asks(lambda w: PLAN.baseline(model_of(w), int(w.layer))),
        gpu=GPUS,
    params:
        spec=lambda w: canonical_json(STUDY.baselines[w.model, int(w.layer), int(w.tokens)].spec),
        lineage=lineage("evaluation"),
    shell:
        "$PYTHON $SCRIPTS/baseline.py --log {log:q} --memory {resources.peak_mb}"
        " --spec {params.spec:q} --model {input.model:q}"
        " --ce {input.ce:q} --train {input.train:q}"
        " --metrics {output.metrics:q} --documents {output.documents:q}"


# The seeds of a setting share a job, which measures the runs that are not yet measured as asked.
# Each run's tables stay in its folder; the setting's own are those of its seeds together, in a folder
# named by what is asked of them: changed settings are then missing files and not a params trigger,
# which Snakemake does not look at while an ancient input is itself about to be made.
rule evaluate:
    input:
        unpack(evaluation_inputs),
    output:
        metrics="results/{cell}/{asked}/metrics.parquet",
        documents="results/{cell}/{asked}/documents.parquet",
    log:
        "results/logs/{cell}/evaluate-{asked}.log",
    threads: THREADS
    resources:
        **asks(lambda w: PLAN.evaluation(cell_of(w))),
        gpu=GPUS,
    params:
        spec=quick(lambda w: canonical_json(STUDY.evaluations[w.cell].spec)),
        # Only where a run is also measured on its training documents.
        train=quick(
            lambda w, input: (
                shlex.join(["--train", input.train]) if "train" in input.keys() else ""
            )
        ),
        lineage=lineage("evaluation"),
    shell:
        "$PYTHON $SCRIPTS/evaluate.py --log {log:q} --memory {resources.peak_mb}"
        " --spec {params.spec:q}"
        " --model {input.model:q} --test {input.test:q} --ce {input.ce:q} --baseline {input.baseline:q}"
        " {params.train} --metrics {output.metrics:q} --documents {output.documents:q}"


# The pools are inputs so that whatever is planned before training, whose inputs are ancient, also
# plans this rule, and through it everything that is missing.
rule collect:
    input:
        metrics=tables_named("metrics") + analysis_tables() + agreement_tables(),
        documents=tables_named("documents"),
        pools=pools(),
    output:
        metrics="results/metrics.parquet",
        documents="results/documents.parquet",
    log:
        "results/logs/collect.log",
    script:
        "../scripts/collect.py"


rule curves:
    input:
        curve_files(),
    output:
        "results/curves.parquet",
    log:
        "results/logs/curves.log",
    params:
        kept=bool(STUDY.rows),
    script:
        "../scripts/curves.py"


rule timings:
    input:
        "results/metrics.parquet",
    output:
        "results/timings.parquet",
    log:
        "results/logs/timings.log",
    script:
        "../scripts/timings.py"
