# The rows that a study keeps of what is finished. Rows that are there when this is read have no rule: they
# are files like any other, and what made them need not exist.

RUNS_TO_RECORD = missing_rows(STUDY.run_rows) if STUDY.rows else []
OTHERS_TO_RECORD = missing_rows(STUDY.other_rows) if STUDY.rows else []


if RUNS_TO_RECORD:

    rule record_run:
        input:
            unpack(run_row_inputs),
        output:
            row_files(STUDY.rows, "{row}", RUN_TABLES),
        log:
            "results/logs/rows/{row}.log",
        wildcard_constraints:
            row=one_of(map(stem, RUNS_TO_RECORD)) + "-[0-9a-f]{12}",
        localrule: True
        params:
            run=quick(lambda w, output: run_of_row(w).path),
        shell:
            "$PYTHON $SCRIPTS/record.py --log {log:q} --run {params.run:q} --metrics {input.metrics:q}"
            " --documents {input.documents:q} --history {input.history:q} --out {output:q}"


if OTHERS_TO_RECORD:

    rule record_other:
        input:
            unpack(other_row_inputs),
        output:
            row_files(STUDY.rows, "{row}", OTHER_TABLES),
        log:
            "results/logs/rows/{row}.log",
        wildcard_constraints:
            row=one_of(OTHERS_TO_RECORD),
        localrule: True
        shell:
            "$PYTHON $SCRIPTS/record.py --log {log:q} --metrics {input.metrics:q}"
            " --documents {input.documents:q} --out {output:q}"
