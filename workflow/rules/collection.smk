# What is put together from all runs. A command line holds a few thousand files at most, so that lists of
# any length reach a job through a pipe (@ of job.py).


# The pools are inputs so that whatever is planned before training, whose inputs are ancient, also
# plans this rule, and through it everything that is missing.
rule collect:
    input:
        metrics=[
            *targets.tables(STUDY, "metrics"),
            *targets.analyses(STUDY),
            *targets.agreement(STUDY),
        ],
        documents=targets.tables(STUDY, "documents"),
        pools=targets.pools(STUDY),
    output:
        metrics="results/metrics.parquet",
        documents="results/documents.parquet",
    log:
        "results/logs/collect.log",
    shell:
        called(
            "summary.py collect --log {log:q} --metrics @<(printf '%s\\n' {input.metrics:q})"
            " --documents @<(printf '%s\\n' {input.documents:q}) --out {output:q}"
        )


rule curves:
    input:
        targets.curves(STUDY),
    output:
        "results/curves.parquet",
    log:
        "results/logs/curves.log",
    params:
        kept=bool(STUDY.rows),
    shell:
        called(
            "summary.py curves --log {log:q} --parts @<(printf '%s\\n' {input:q}) --out {output:q}"
        )


rule timings:
    input:
        "results/metrics.parquet",
    output:
        "results/timings.parquet",
    log:
        "results/logs/timings.log",
    shell:
        called("summary.py timings --log {log:q} --out {output:q}")


rule provenance:
    input:
        timings="results/timings.parquet",
    output:
        "results/provenance.json",
    log:
        "results/logs/provenance.log",
    params:
        config=untriggered(lambda w: canonical_json(config)),
    shell:
        called(
            "summary.py provenance --log {log:q} --config {params.config:q}"
            " --timings {input.timings:q} --out {output:q}"
        )
