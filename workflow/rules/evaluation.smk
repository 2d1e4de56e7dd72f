# Measurements: of the language model itself, and of the trained runs.


rule baseline:
    input:
        model="results/{model}/model.json",
        ce=ancient("results/{model}/{corpus}/layer{layer}/pool/ce.json"),
        train=ancient("results/{model}/{corpus}/layer{layer}/pool/train.json"),
    output:
        metrics="results/{model}/{corpus}/layer{layer}/baseline/{recipe}_t{tokens}/metrics.parquet",
        documents="results/{model}/{corpus}/layer{layer}/baseline/{recipe}_t{tokens}/documents.parquet",
    log:
        "results/logs/{model}/{corpus}/layer{layer}/baseline_{recipe}_t{tokens}.log",
    threads: THREADS
    resources:
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: 60 * attempt,
        gpu=GPUS,
    params:
        spec=lambda w: canonical_json(STUDY.baseline_spec(w.model, int(w.layer), int(w.tokens))),
        lineage=lineage("evaluation"),
    shell:
        "$PYTHON $SCRIPTS/baseline.py --log {log:q} --spec {params.spec:q} --model {input.model:q}"
        " --ce {input.ce:q} --train {input.train:q}"
        " --metrics {output.metrics:q} --documents {output.documents:q}"


# The seeds of a setting share a job, which evaluates those that are not yet evaluated. Outputs
# must be known without the setting, so each set of seeds that occurs has a rule.
for SEEDS, PATTERN in STUDY.cell_patterns.items():

    rule:
        name:
            f"evaluate_seeds_{seeds_name(SEEDS)}"
        input:
            weights=expand("results/{{cell}}_seed{seed}/weights.safetensors", seed=SEEDS),
            model=lambda w: ancient(f"results/{cell_of(w).model}/model.json"),
            test=lambda w: ancient(f"{folder(cell_of(w))}/pool/test.json"),
            ce=lambda w: ancient(f"{folder(cell_of(w))}/pool/ce.json"),
            baseline=lambda w: f"{baseline_of(cell_of(w))}/metrics.parquet",
        output:
            update(
                expand(
                    "results/{{cell}}_seed{seed}/{table}.parquet",
                    seed=SEEDS,
                    table=["metrics", "documents"],
                )
            ),
        log:
            f"results/logs/{{cell}}/evaluate_seeds_{seeds_name(SEEDS)}.log",
        wildcard_constraints:
            cell=PATTERN,
        threads: THREADS
        resources:
            mem_mb=lambda w, attempt: 4000 * attempt,
            runtime=lambda w, attempt: 120 * attempt,
            gpu=GPUS,
        params:
            spec=lambda w: canonical_json(STUDY.evaluation_spec(w.cell)),
            lineage=lineage("evaluation"),
        shell:
            "$PYTHON $SCRIPTS/evaluate.py --log {log:q} --spec {params.spec:q} --weights {input.weights:q}"
            " --model {input.model:q} --test {input.test:q} --ce {input.ce:q} --baseline {input.baseline:q}"


rule collect:
    input:
        metrics=tables_named("metrics"),
        documents=tables_named("documents"),
    output:
        metrics="results/metrics.parquet",
        documents="results/documents.parquet",
    log:
        "results/logs/collect.log",
    script:
        "../scripts/collect.py"


rule timings:
    input:
        "results/metrics.parquet",
    output:
        "results/timings.parquet",
    log:
        "results/logs/timings.log",
    script:
        "../scripts/timings.py"
