# Recipes compared on the validation split: only where the configuration has a block `sweep`.

if STUDY.sweep:

    rule validate:
        input:
            unpack(inputs_of(STUDY.swept, "cell", targets.for_validation)),
        output:
            "results/{cell}/{asked}/validation.parquet",
        log:
            "results/logs/{cell}/validate-{asked}.log",
        wildcard_constraints:
            cell=CELL_PATTERN,
        threads: THREADS
        resources:
            **asks(of(STUDY.swept, "cell", PLAN.validation)),
            gpu=GPUS,
        params:
            spec=quick(lambda w: canonical_json(STUDY.validations[w.cell].spec)),
            lineage=lineage("evaluation"),
        shell:
            called(
                "validate.py --log {log:q} --memory {resources.peak_mb}"
                " --spec {params.spec:q} --pool {input.validation:q} --out {output:q}"
            )

    rule sweep:
        input:
            [f"{task.folder}/validation.parquet" for task in STUDY.validations.values()],
        output:
            tables=[f"results/sweep/sweep.{ending}" for ending in ("csv", "md", "tex")],
            pdf="results/sweep/sweep.pdf",
            png="results/sweep/sweep.png",
        log:
            "results/logs/sweep.log",
        params:
            spec=canonical_json({"values": STUDY.sweep.values, "inference": STUDY.sweep.inference}),
        shell:
            called(
                "summary.py sweep --log {log:q} --parts @<(printf '%s\\n' {input:q})"
                " --spec {params.spec:q} --out {output.pdf:q}"
            )
