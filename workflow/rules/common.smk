# The study, and what all rules share. No torch here, since this file is read for every job.

import atexit
import gc
import inspect
import os
import re
import shlex
import shutil
import sys
from pathlib import Path, PurePosixPath

import snakemake.resources
from snakemake.common import overwrite_function_params
from snakemake.exceptions import WorkflowError

from expander_sae.machine import folder_owner
from expander_sae.cost.time_model import CPU_FILE, Machine
from expander_sae.cost.job_estimates import Plan
from expander_sae.errors import UserError
from expander_sae.storage.files import canonical_json, digest
from expander_sae.cost.memory_estimate import Memory, asked_mb, asked_minutes
from expander_sae.study.wildcard_patterns import one_of
from expander_sae.study.kept_tables import OTHER_TABLES, RUN_TABLES, recorded, row_files, stem
from expander_sae.stages import lineage
from expander_sae.study.study import Study, load_config

# A graph of thousands of jobs is millions of objects that stay: looking through them for garbage every
# few hundred allocations takes a tenth of the planning.
gc.set_threshold(1_000_000, 10, 10)

# Of this file and not of the workflow's main one, which can be the Snakefile beside it or ../Snakefile.
BASE = Path(str(workflow.current_basedir)).parents[1]


# A configuration given on the command line stands alone: it is not merged into config.yaml.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml" if Path("config.yaml").exists() else BASE / "config.yaml"


try:
    CHECKED = load_config(config, BASE / "workflow" / "schemas" / "config.schema.yaml")
    STUDY = Study(CHECKED)
    if STUDY.rows:
        STUDY = Study(CHECKED, recorded(STUDY.rows))
except UserError as error:
    raise WorkflowError(str(error)) from None

# Seeds of a job → name of a setting → the runs of those seeds.
TRAININGS = {}
for JOB in STUDY.trainings:
    TRAININGS.setdefault(JOB.seeds, {})[JOB.name] = JOB.runs

FIRST_RUNS = [cell.runs[0] for cell in STUDY.cells.values()]
COMPUTE = STUDY.config["compute"]
DEVICE = COMPUTE["device"]
# What a job asks the scheduler for. Found out once, where the workflow starts: a node of a cluster that
# has a GPU must not use one that was not asked for.
if workflow.is_main_process:
    GPUS = int(DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None))
else:
    GPUS = int(os.environ.get("EXPANDER_SAE_GPUS", "0"))
THREADS = COMPUTE["threads"]

# What each job takes at most. The times are those of a CPU: on a GPU a job asks for too much.
PLAN = Plan(STUDY, Machine.read(CPU_FILE), memory=Memory(STUDY, gpu=bool(GPUS)))

# How a job computes reaches it by its environment and not by params or the command's text, since
# changing it must not rerun anything.
os.environ.update(
    PYTHON=sys.executable,
    SCRIPTS=str(BASE / "workflow" / "scripts"),
    EXPANDER_SAE_DEVICE=DEVICE,
    EXPANDER_SAE_GPUS=str(GPUS),
    EXPANDER_SAE_BACKEND=COMPUTE["backend"],
    EXPANDER_SAE_THREADS=str(THREADS),
    EXPANDER_SAE_BATCH_TOKENS=str(COMPUTE["batch_tokens"]),
)

CELL = r"[^/]+/[^/]+/layer\d+/[^/]+/[^/]+/n\d+_d\d+_k\d+"


wildcard_constraints:
    model=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    corpus=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    recipe=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    family=r"[a-z][a-z0-9_]*",
    layer=r"\d+",
    split="train|test|ce",
    shard=r"\d{5}",
    tokens=r"\d+",
    m=r"\d+",
    n=r"\d+",
    d=r"\d+",
    seed=r"\d+",
    asked=r"[0-9a-f]{12}",
    cell=CELL,


# What looks at the workflow and runs nothing of it. `make` holds the records while it calls --unlock.
ONLY_LOOKS = workflow.output_settings.dryrun or any(
    argument in ("--unlock", "--lint", "--list-rules", "--list-target-rules", "--summary", "--dag")
    for argument in sys.argv
)
if workflow.is_main_process:
    try:
        # By this a later run finds the jobs of one that was killed.
        os.environ[folder_owner.VARIABLE] = folder_owner.Owner.this_process().name
        if not ONLY_LOOKS:
            # Here and not in onstart, which comes after Snakemake's lock. Removed as the process ends,
            # in whatever way but a kill: onsuccess is not called where nothing was to be done.
            folder_owner.write()
            atexit.register(folder_owner.remove, Path.cwd())
    except UserError as error:
        raise WorkflowError(str(error)) from None


onstart:
    for line in STUDY.left_out:
        print(f"left out: {line}", file=sys.stderr)


def asked_for(targets):
    """Files that the targets name, or that the rules that they name state without wildcards."""
    for target in targets:
        if workflow.is_rule(target):
            named = workflow.get_rule(target)
            stated = [file for file in [*named.input, *named.output] if isinstance(file, str)]
            yield from (file for file in map(str, stated) if "{" not in file)
        else:
            yield target


# Snakemake leaves out what is missing behind an ancient input that is itself made again, and calls that
# success (github.com/snakemake/snakemake/issues/4166).
onsuccess:
    settings = workflow.dag_settings
    partial = settings.until or settings.omit_from or settings.batch or workflow.touch
    elsewhere = (
        workflow.remote_execution_settings.immediate_submit
        or workflow.storage_settings.default_storage_provider
    )
    if not (partial or elsewhere):
        asked = asked_for(settings.targets or [workflow.default_target])
        missing = [file for file in asked if not os.path.exists(file)]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise WorkflowError(
                f"{missing[0]}{more}: not made, since what it is made from was itself made again; the "
                "same command makes it now"
            )


def quick(function):
    """`function` with its parameters worked out: Snakemake looks at them several times a job, which
    slows the planning of thousands."""
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


# So is Snakemake's own method by which every resource of every job is worked out. Early versions of it
# have none.
if hasattr(snakemake.resources, "Resource"):
    quick(snakemake.resources.Resource.evaluate)


def asks(need, minutes=30):
    """Resources of a rule from `need`, which gives a job's `Need` by its wildcards.

    mem_mb and runtime are what a scheduler is asked for, more at each attempt. peak_mb is the
    estimate itself, which the job compares with the memory that it finds.
    """
    known = {}

    def once(wildcards):
        key = tuple(wildcards)
        if key not in known:
            known[key] = need(wildcards)
        return known[key]

    found = {
        "mem_mb": lambda wildcards, attempt: asked_mb(once(wildcards).peak_mb, attempt),
        "peak_mb": lambda wildcards: round(once(wildcards).peak_mb),
        "runtime": lambda wildcards, attempt: asked_minutes(
            once(wildcards).seconds, minutes, attempt
        ),
    }
    return {name: quick(function) for name, function in found.items()}


def cell_of(wildcards):
    """The setting of a path's wildcards: its runs, one a seed."""
    if wildcards.cell not in STUDY.cells:
        raise WorkflowError(f"results/{wildcards.cell}: no such runs in the configuration")
    return STUDY.cells[wildcards.cell]


def model_of(wildcards):
    if wildcards.model not in STUDY.models:
        raise WorkflowError(f"results/{wildcards.model}: no such model in the configuration")
    return STUDY.models[wildcards.model]


def model_spec(wildcards):
    return model_of(wildcards).spec


def corpus_spec(wildcards):
    if wildcards.corpus != STUDY.corpus:
        raise WorkflowError(
            f"results/{wildcards.model}/{wildcards.corpus}: no such corpus in the configuration"
        )
    return STUDY.corpus_spec


def folder(run):
    """Where a run's activations lie."""
    return f"results/{run.model}/{run.corpus}/layer{run.layer}"


def shard_files(wildcards):
    """Every shard of a pool."""
    where = f"results/{wildcards.model}/{wildcards.corpus}/layer{wildcards.layer}/shards"
    count = STUDY.shards(wildcards.model)[wildcards.split]
    return [f"{where}/{wildcards.split}-{index:05d}.parquet" for index in range(count)]


def tables_named(name):
    """That table of every setting, of every baseline and of every synthetic dictionary; or all the rows
    that the study keeps."""
    if STUDY.rows:
        rows = [*STUDY.run_rows, *STUDY.other_rows]
        return [file for row in rows for file in row_files(STUDY.rows, row, [name])]
    folders = [task.folder for task in STUDY.evaluations.values()]
    folders.extend(sorted({STUDY.baseline(run).folder for run in FIRST_RUNS}))
    folders.extend(STUDY.synthetic)
    return [f"{folder}/{name}.parquet" for folder in folders]


def synthetic_tables():
    """What the synthetic trials found, one table a dictionary."""
    parts = list(STUDY.synthetic)
    if STUDY.rows:
        rows = [name for name, folder in STUDY.other_rows.items() if folder in parts]
        return [file for row in rows for file in row_files(STUDY.rows, row, ["metrics"])]
    return [f"{part}/metrics.parquet" for part in parts]


def curve_files():
    """The learning curve of every run."""
    if STUDY.rows:
        return [file for row in STUDY.run_rows for file in row_files(STUDY.rows, row, ["curve"])]
    return [f"{run.path}/training.csv" for run in STUDY.runs]


def missing_rows(names):
    """Those of the names whose rows are not there yet."""
    return [name for name in names if not STUDY.is_recorded(name)]


def run_of_row(wildcards):
    if wildcards.row not in STUDY.run_rows:
        raise WorkflowError(f"{STUDY.rows}/{wildcards.row}: no such rows in the configuration")
    return STUDY.run_rows[wildcards.row]


@quick
def run_row_inputs(wildcards):
    run = run_of_row(wildcards)
    measured = STUDY.evaluations[run.cell.name].folder
    analysed = [f"{STUDY.analyses[run.cell.name].folder}/analysis.parquet"] if run.analysis.analyses else []
    return {
        "metrics": [f"{measured}/metrics.parquet", *analysed],
        "documents": f"{measured}/documents.parquet",
        "history": f"{run.path}/training.csv",
        # As in rule collect, what is missing behind ancient inputs is planned through these.
        "pools": [f"{folder(run)}/pool/{split}.json" for split in STUDY.shards(run.model)],
    }


@quick
def other_row_inputs(wildcards):
    made = STUDY.other_rows[wildcards.row]
    layer = PurePosixPath(made).parents[1]
    measured = made not in STUDY.synthetic
    pools = [f"{layer}/pool/{split}.json" for split in ("train", "ce") if measured]
    return {**{name: f"{made}/{name}.parquet" for name in OTHER_TABLES}, "pools": pools}


def agreement_tables():
    """How the synthetic trials agree with the published ones, where there are any."""
    parts = list(STUDY.synthetic)
    return [f"results/synthetic/agreement-{digest(parts)[:12]}/metrics.parquet"] if parts else []


def analysis_tables():
    """What the analyses found, of every setting that is analysed; rows that are kept hold it."""
    if STUDY.rows:
        return []
    return [f"{task.folder}/analysis.parquet" for task in STUDY.analyses.values()]


def pools():
    """The manifest of every pool; a study's rows need none."""
    if STUDY.rows:
        return []
    return [
        f"results/{model.label}/{STUDY.corpus}/layer{layer}/pool/{split}.json"
        for model in STUDY.models.values()
        for layer in model.layers
        for split in STUDY.shards(model.label)
    ]


def runs_trained(cells, wildcards):
    """Those of `cells` that a training job trains."""
    if wildcards.cell not in cells:
        raise WorkflowError(f"results/{wildcards.cell}: no such runs in the configuration")
    return cells[wildcards.cell]


def training_inputs(cells):
    """Input function of the training jobs of these settings."""

    @quick
    def inputs(wildcards):
        runs = runs_trained(cells, wildcards)
        return {
            "pool": ancient(f"{folder(runs[0])}/pool/train.json"),
            "masks": [run.mask for run in runs if run.mask],
            "parents": [ancient(weights_of(run.parent)) for run in runs if run.parent],
        }

    return inputs


def training_need(cells):
    """What a training job of these settings takes, by its wildcards."""
    return lambda wildcards: PLAN.trainings(runs_trained(cells, wildcards))


def training_spec(cells):
    """Param function: run folder → what it is told, its mask's file, the weights that it starts from."""

    @quick
    def spec(wildcards, output):
        return canonical_json(
            {
                run.path: {
                    "spec": run.spec,
                    "mask": run.mask,
                    "parent": weights_of(run.parent) if run.parent else None,
                }
                for run in runs_trained(cells, wildcards)
            }
        )

    return spec


def weights_of(run):
    return f"{run.path}/weights.safetensors"


def seeds_name(seeds):
    """Seeds as part of a rule's name: 0, 0_3, or 0to4 for all of 0, 1, …, 4."""
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}to{seeds[-1]}"
    return "_".join(map(str, seeds))


@quick
def evaluation_inputs(wildcards):
    runs = cell_of(wildcards).runs
    run = runs[0]
    leak = any(run.evaluation.train_cross_entropy for run in runs)
    return {
        **({"train": ancient(f"{folder(run)}/pool/train.json")} if leak else {}),
        "weights": [weights_of(run) for run in runs],
        "model": ancient(f"results/{run.model}/model.json"),
        "test": ancient(f"{folder(run)}/pool/test.json"),
        "ce": ancient(f"{folder(run)}/pool/ce.json"),
        "baseline": f"{STUDY.baseline(run).folder}/metrics.parquet",
    }


@quick
def analysis_inputs(wildcards):
    spec = STUDY.analyses[cell_of(wildcards).name].spec
    references = {settings["reference"] for settings in spec.values()} - {None}
    return {
        "weights": [f"{path}/weights.safetensors" for path in spec],
        "references": [f"{path}/weights.safetensors" for path in sorted(references)],
        "test": ancient(f"{folder(cell_of(wildcards).runs[0])}/pool/test.json"),
    }


def synthetic_spec(wildcards):
    part = f"results/synthetic/m{wildcards.m}_n{wildcards.n}_d{wildcards.d}-{wildcards.asked}"
    if part not in STUDY.synthetic:
        raise WorkflowError(f"{part}: no such trials in the configuration")
    return STUDY.synthetic[part]


def mask_spec(wildcards):
    sizes = {key: int(getattr(wildcards, key)) for key in ("m", "n", "d", "seed")}
    return {"family": wildcards.family, **sizes}


def rule_name(label):
    """A label as part of a rule's name."""
    return re.sub(r"\W", "_", label)
