# How long a correlation takes.


# Times of this machine, never the same twice: a target of its own, and an input of no other table. Rows
# carry the columns of their runs, so that another list of runs is another table.
rule speed:
    output:
        "results/speed.parquet",
    log:
        "results/logs/speed.log",
    threads: THREADS
    params:
        spec=STUDY.speed_spec(),
        config=untriggered(lambda w: canonical_json(config)),
    shell:
        called("summary.py speed --log {log:q} --config {params.config:q} --out {output:q}")
