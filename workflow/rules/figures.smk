# What a reader looks at.


rule provenance:
    input:
        timings="results/timings.parquet",
    output:
        "results/provenance.json",
    log:
        "results/logs/provenance.log",
    script:
        "../scripts/provenance.py"


rule frontier:
    input:
        metrics="results/metrics.parquet",
        provenance="results/provenance.json",
        published=BASE / "resources" / "paper_figures.csv",
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
    script:
        "../scripts/frontier.py"
