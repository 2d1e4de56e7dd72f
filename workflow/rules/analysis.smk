# What trained runs are like beside their errors: no language model is needed.


ANALYSED = {name: STUDY.measured[name] for name in STUDY.analyses}

# A file of the user's, whose name Snakemake reads as its own names.
LABELS = named(STUDY.config["evaluation"]["labels"] or "")
if contains_wildcard(LABELS):
    raise WorkflowError(
        f"evaluation.labels: found braces in {LABELS!r}, which Snakemake takes for a wildcard; expected another name"
    )


# Of the test tokens, once for all runs: the tokenizer takes seconds to load.
rule labels:
    input:
        model="results/{model}/model.json",
        tokens="results/{model}/{corpus}/tokens.parquet",
        origins="results/{model}/{corpus}/origins.parquet",
        # The user's file is not where a prefix puts results.
        user=([os.path.abspath(LABELS) if PREFIX else LABELS] if LABELS else []),
    output:
        "results/{model}/{corpus}/labels.parquet",
    log:
        "results/logs/{model}/{corpus}/labels.log",
    resources:
        **asks(of(STUDY.models, "model", PLAN.model)),
    params:
        user=shlex.join(["--user", LABELS]) if LABELS else "",
        lineage=lineage("labels"),
    shell:
        called(
            "labels.py --log {log:q} --memory {resources.peak_mb} --model {input.model:q}"
            " --tokens {input.tokens:q} --origins {input.origins:q} {params.user} --out {output:q}"
        )


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
        # Only where an analysis reads labels.
        labels=quick(
            lambda w, input: (
                shlex.join(["--labels", input.labels]) if "labels" in input.keys() else ""
            )
        ),
        lineage=lineage("analysis"),
    shell:
        called(
            "analyse.py --log {log:q} --memory {resources.peak_mb}"
            " --spec {params.spec:q} --test {input.test:q} {params.labels} --out {output:q}"
        )
