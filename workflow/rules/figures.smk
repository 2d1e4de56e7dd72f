# Every figure.

from expander_sae.figures.catalogue import FIGURES


rule frontier:
    input:
        metrics="results/metrics.parquet",
        provenance="results/provenance.json",
        published=SHOWN["published"],
    output:
        pdf="results/frontier.pdf",
        png=report(
            "results/frontier.png",
            caption="../report/frontier.rst",
            category="Figures",
            labels={"figure": "The storage-fidelity frontier"},
        ),
    log:
        "results/logs/frontier.log",
    shell:
        called(
            "summary.py frontier --log {log:q} --metrics {input.metrics:q}"
            " --published {input.published:q} --pdf {output.pdf:q} --png {output.png:q}"
        )


# One job for all of them: importing matplotlib takes longer than drawing a figure.
rule figures:
    input:
        **SHOWN,
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
    params:
        inputs=as_json,
    shell:
        called(
            "summary.py figures --log {log:q} --inputs {params.inputs:q} --out {output.pdf[0]:q}"
        )
