# Every table for a reader.

from expander_sae.report.table_names import TABLES


rule tables:
    input:
        **SHOWN,
    output:
        [f"results/tables/{name}.{ending}" for name in TABLES for ending in ("md", "tex")],
        csv=[
            report(
                f"results/tables/{name}.csv",
                caption="../report/tables.rst",
                category="Tables",
                labels={"table": name},
            )
            for name in TABLES
        ],
    log:
        "results/logs/tables.log",
    params:
        inputs=as_json,
    shell:
        called("summary.py tables --log {log:q} --inputs {params.inputs:q} --out {output.csv[0]:q}")
