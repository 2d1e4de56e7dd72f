# The study, and what all rules share. No torch here, since this file is read for every job.

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import contains_wildcard

from expander_sae.cost.job_estimates import Plan
from expander_sae.cost.memory_estimate import Memory
from expander_sae.cost.time_model import CPU_FILE, Machine
from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.files import canonical_json
from expander_sae.storage.locations import named
from expander_sae.storage.workflow_files import ROOT
from expander_sae.study import targets
from expander_sae.study.kept_tables import OTHER_TABLES, RUN_TABLES, recorded, row_files, stem
from expander_sae.study.run import CELL_PATTERN
from expander_sae.study.study import Study, load_config
from expander_sae.study.wildcard_patterns import one_of

# These rules can be elsewhere than the library: Snakemake fetches those of a module from a repository.
sys.path.insert(0, str(ROOT / "workflow" / "rules"))

from job_functions import as_json, asks, inputs_of, marked, of, untriggered
from snakemake_patches import (
    compare_contents,
    own_folder,
    placed,
    plan_quickly,
    quick,
    require_targets,
)

plan_quickly()
# Not of another workflow's files.
if workflow.modifier.is_main_snakefile():
    compare_contents()

# What stands before every path where another workflow imports this one as a module with a prefix.
PREFIX = placed(workflow, "results").removesuffix("results")
# The workflow's files as they stand in lists of inputs, which Snakemake compares by name. A copy of the checkout
# with its results has the same names where they are relative, a copy of a study outside of it where they are
# absolute. In these lists {name} is a wildcard: relative, no folder above the two has a part in it. A prefix is
# put before all that is relative.
WITHIN = Path.cwd().is_relative_to(ROOT) and not PREFIX
BESIDE = Path(os.path.relpath(ROOT)) if WITHIN or contains_wildcard(ROOT) else ROOT
for FOLDER in (BESIDE, PREFIX):
    if contains_wildcard(FOLDER):
        raise WorkflowError(
            f"{FOLDER}: found braces in the folder's name, which Snakemake takes for a wildcard; expected the "
            "workflow to be started in this folder, or another name"
        )


# A configuration given on the command line stands alone: it is not merged into config.yaml. One that another
# workflow gives this module stands alone as well.
if workflow.modifier.is_main_snakefile() and not workflow.overwrite_configfiles:

    configfile: "config.yaml" if Path("config.yaml").exists() else ROOT / "config.yaml"


try:
    CHECKED = load_config(config)
    COMPUTE = CHECKED["compute"]
    DEVICE, THREADS = COMPUTE["device"], COMPUTE["threads"]
    # What a job asks the scheduler for. Found out once, where the workflow starts: a node of a cluster that
    # has a GPU must not use one that was not asked for.
    if workflow.is_main_process:
        GPUS = int(
            DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None)
        )
    else:
        GPUS = int(os.environ.get("EXPANDER_SAE_GPUS", "0"))
    STUDY = Study(CHECKED, gpu=bool(GPUS))
    if STUDY.rows:
        STUDY = Study(CHECKED, recorded(placed(workflow, STUDY.rows)), gpu=bool(GPUS))
    own_folder(workflow)
except UserError as error:
    raise WorkflowError(str(error)) from None

# What each job takes at most. The times are those of a CPU: on a GPU a job asks for too much.
PLAN = Plan(STUDY, Machine.read(CPU_FILE), memory=Memory(STUDY, gpu=bool(GPUS)))

# How a job computes reaches it by its environment and not by params or the command's text, since
# changing it must not rerun anything.
os.environ.update(
    EXPANDER_SAE_PYTHON=sys.executable,
    EXPANDER_SAE_SCRIPTS=str(ROOT / "workflow" / "scripts"),
    EXPANDER_SAE_DEVICE=DEVICE,
    EXPANDER_SAE_GPUS=str(GPUS),
    EXPANDER_SAE_BACKEND=COMPUTE["backend"],
    EXPANDER_SAE_PRODUCTS=COMPUTE["products"],
    EXPANDER_SAE_THREADS=str(THREADS),
    EXPANDER_SAE_BATCH_TOKENS=str(COMPUTE["batch_tokens"]),
)

# What figures, tables and the report are made from.
SHOWN = {
    "metrics": "results/metrics.parquet",
    "documents": "results/documents.parquet",
    "claims": "results/claims.json",
    "curves": "results/curves.parquet",
    "published": BESIDE / "resources" / "paper_figures.csv",
    "synthetic": BESIDE / "resources" / "paper_synthetic_omp.csv",
    "benchmarks": sorted((BESIDE / "benchmarks" / "results").glob("*.json")),
}

# How each job's command begins; a container has these two variables of its own.
RUN = '"$EXPANDER_SAE_PYTHON" "$EXPANDER_SAE_SCRIPTS"/'
if PREFIX:
    RUN = f"EXPANDER_SAE_PREFIX={shlex.quote(PREFIX)} {RUN}"


def called(command):
    """A job's command, from its script's name on."""
    return f"{RUN}{command}"


# What a job measures: a cell, or several.
JOB = rf"(?:{CELL_PATTERN}|[^/]+/[^/]+/layer\d+/together/[0-9a-f]{{12}})"


wildcard_constraints:
    **dict.fromkeys(["model", "corpus", "recipe"], r"[A-Za-z0-9][A-Za-z0-9._-]*"),
    **dict.fromkeys(["layer", "tokens", "m", "n", "d", "seed"], r"\d+"),
    family=r"[a-z][a-z0-9_]*",
    split="train|test|ce|validation",
    shard=r"\d{5}",
    asked=r"[0-9a-f]{12}",
    cell=CELL_PATTERN,
    job=JOB,


onstart:
    for line in STUDY.left_out:
        print(f"left out: {line}", file=sys.stderr)


onsuccess:
    require_targets(workflow)
