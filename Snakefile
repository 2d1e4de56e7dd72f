# From language models to results/frontier.pdf and results/report.html. See README.md and docs/.

from snakemake.utils import min_version

min_version("9.10")


# Of the folder in which the workflow runs, and read only with --software-deployment-method apptainer:
# containers/expander-sae.def says how it is built.
container: "expander-sae.sif"


include: "workflow/rules/common.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/masks.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/speed.smk"
include: "workflow/rules/sweep.smk"
include: "workflow/rules/synthetic.smk"
include: "workflow/rules/recording.smk"
include: "workflow/rules/collection.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        "results/frontier.pdf",
        "results/claims.json",
        rules.figures.output,
        rules.tables.output,
        "results/report.html",
        ["results/sweep/sweep.pdf"] if STUDY.sweep else [],
