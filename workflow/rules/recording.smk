# The rows that a study keeps of what is finished. Rows that are there when this is read have no rule: they
# are files like any other, and what made them need not exist.

RUNS_TO_RECORD = targets.unrecorded(STUDY, STUDY.run_rows)
OTHERS_TO_RECORD = targets.unrecorded(STUDY, STUDY.other_rows)


if RUNS_TO_RECORD:

    rule record_run:
        input:
            unpack(of(STUDY.run_rows, "row", lambda run: targets.for_run_row(STUDY, run))),
        output:
            row_files(STUDY.rows, "{row}", RUN_TABLES),
        log:
            "results/logs/rows/{row}.log",
        wildcard_constraints:
            row=one_of(map(stem, RUNS_TO_RECORD)) + "-[0-9a-f]{12}",
        localrule: True
        params:
            run=untriggered(of(STUDY.run_rows, "row", lambda run: run.path)),
        shell:
            called(
                "record.py --log {log:q} --run {params.run:q} --metrics {input.metrics:q}"
                " --documents {input.documents:q} --history {input.history:q} --out {output:q}"
            )


if OTHERS_TO_RECORD:

    rule record_other:
        input:
            unpack(of(STUDY.other_rows, "row", lambda folder: targets.for_other_row(STUDY, folder))),
        output:
            row_files(STUDY.rows, "{row}", OTHER_TABLES),
        log:
            "results/logs/rows/{row}.log",
        wildcard_constraints:
            row=one_of(OTHERS_TO_RECORD),
        localrule: True
        shell:
            called(
                "record.py --log {log:q} --metrics {input.metrics:q}"
                " --documents {input.documents:q} --out {output:q}"
            )
