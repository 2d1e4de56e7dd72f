# One page that holds verdicts, figures and tables.


rule report:
    input:
        **SHOWN,
        figures=rules.figures.output,
        frontier="results/frontier.png",
        provenance="results/provenance.json",
    output:
        report(
            "results/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "report"},
        ),
    log:
        "results/logs/report.log",
    params:
        inputs=as_json,
    shell:
        called("summary.py report --log {log:q} --inputs {params.inputs:q} --out {output:q}")
