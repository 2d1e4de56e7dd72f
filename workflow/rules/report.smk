# Every figure but the frontier, every table, and one page that holds them all.

from expander_sae.figures.catalogue import FIGURES
from expander_sae.report.table_names import TABLES


# One job for all of them: importing matplotlib takes longer than drawing a figure.
rule figures:
    input:
        unpack(figure_inputs),
    output:
        pdf=[f"results/figures/{figure.name}.pdf" for figure in FIGURES],
        column=[f"results/figures/{figure.name}-column.png" for figure in FIGURES],
        page=[
            report(
                f"results/figures/{figure.name}.png",
                caption="../report/figures.rst",
                category="Figures",
                labels={"figure": figure.title},
            )
            for figure in FIGURES
        ],
    log:
        "results/logs/figures.log",
    script:
        "../scripts/figures.py"


rule tables:
    input:
        unpack(figure_inputs),
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
    script:
        "../scripts/tables.py"


rule report:
    input:
        unpack(figure_inputs),
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
    script:
        "../scripts/report.py"
