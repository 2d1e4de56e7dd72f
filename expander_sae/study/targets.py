"""The files that a study's jobs read, and those that its tables are put together from.

The tables come from what the jobs wrote or, where the study keeps rows of its finished runs, from these rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from expander_sae.activations.splits import VALIDATION
from expander_sae.storage.files import digest
from expander_sae.study.jobs import Job
from expander_sae.study.kept_tables import OTHER_TABLES
from expander_sae.study.recipes import Recipe
from expander_sae.study.run import RESULTS, Run
from expander_sae.study.study import Study

Files = dict[str, str | list[str]]
"""Names of a rule's inputs → their files."""


def trainings(study: Study) -> dict[tuple[int, ...], dict[str, Job]]:
    """Seeds → cell name → the runs of these seeds, which share a job; those of several cells are not here."""
    found: dict[tuple[int, ...], dict[str, Job]] = {}
    for job in study.trainings:
        if not job.several_cells:
            found.setdefault(job.seeds, {})[job.name] = job
    return found


def trained_together(study: Study) -> dict[str, Job]:
    """Part of a rule's name → the runs of several cells, which share a job."""
    return {job.name.rpartition("/")[2]: job for job in study.trainings if job.several_cells}


def seeds_name(seeds: Sequence[int]) -> str:
    """Seeds as part of a rule's name: 0, 0_3, or 0to4 for all of 0, 1, …, 4."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}to{seeds[-1]}"
    return "_".join(map(str, seeds))


def training_spec(cell: Job) -> dict[str, dict[str, Any]]:
    """What a training job is told: run folder → its spec, its mask, the weights that it starts from; or of a
    run that is imported its spec, where its files lie and their checksum."""
    return {run.path: {"spec": run.spec, **_starts_from(run)} for run in cell.runs}


def _starts_from(run: Run) -> dict[str, Any]:
    if run.imported is not None:
        return {"imported": run.imported.path, "sha256": run.imported.sha256}
    return {"mask": run.mask, "parent": weights(run.parent.path) if run.parent else None}


def for_training(cell: Job) -> Files:
    """What the training of a cell's runs reads."""
    return {
        "pool": _pool(cell.runs[0], training_pool(cell.runs[0].recipe_settings)),
        "masks": [run.mask for run in cell.runs if run.mask],
        "parents": [weights(run.parent.path) for run in cell.runs if run.parent],
    }


def for_evaluation(study: Study, job: Job) -> Files:
    """What the evaluation of a job's runs reads; their training pool only if they are measured on it."""
    run, leak = job.runs[0], any(run.evaluation.train_cross_entropy for run in job.runs)
    return {
        **({"train": _pool(run, "train")} if leak else {}),
        "weights": [weights(run.path) for run in job.runs],
        "model": f"{RESULTS}/{run.model}/model.json",
        "test": _pool(run, "test"),
        "ce": _pool(run, "ce"),
        "baseline": f"{study.baseline(run).folder}/metrics.parquet",
    }


def for_analysis(study: Study, job: Job) -> Files:
    """What the analysis of a job's runs reads. `references`: the dense runs that they are compared with."""
    spec, run = study.analyses[job.name].spec, job.runs[0]
    references = {settings["reference"] for settings in spec.values()} - {None}
    labelled = any("labelled_tokens" in settings for settings in spec.values())
    return {
        **({"labels": f"{RESULTS}/{run.model}/{run.corpus}/labels.parquet"} if labelled else {}),
        "weights": list(map(weights, spec)),
        "references": list(map(weights, sorted(references))),
        "test": _pool(run, "test"),
    }


def for_validation(cell: Job) -> Files:
    """What the measurement of swept runs reads."""
    return {
        "weights": [weights(run.path) for run in cell.runs],
        "validation": _pool(cell.runs[0], VALIDATION),
    }


def for_run_row(study: Study, run: Run) -> Files:
    """What the rows of a run are taken from; through the pools Snakemake plans what is missing."""
    job = study.measured_by[run.path]
    measured = study.evaluations[job].folder
    analysed = [f"{study.analyses[job].folder}/analysis.parquet"] if run.analysis.analyses else []
    return {
        "metrics": [f"{measured}/metrics.parquet", *analysed],
        "documents": f"{measured}/documents.parquet",
        "history": f"{run.path}/training.csv",
        "pools": [_pool(run, name) for name in _pools(study, run.model)],
    }


def for_other_row(study: Study, folder: str) -> Files:
    """What rows are taken from that belong to no run: tables of a baseline or of synthetic trials."""
    layer, names = PurePosixPath(folder).parents[1], (training_pool(study.recipe_settings), "ce")
    pools = [f"{layer}/pool/{name}.json" for name in names if folder not in study.synthetic]
    return {**{name: f"{folder}/{name}.parquet" for name in OTHER_TABLES}, "pools": pools}


def unrecorded(study: Study, names: Iterable[str]) -> list[str]:
    """Those of these names of rows that the study keeps and does not have yet."""
    return [name for name in names if study.rows and not study.is_recorded(name)]


def tables(study: Study, name: str) -> list[str]:
    """The table `name` of every job of evaluation, of every baseline and of all synthetic trials."""
    if study.rows:
        return _kept(study, [*study.run_rows, *study.other_rows], name)
    baselines = {study.baseline(job.runs[0]).folder for job in study.measured.values()}
    measured = [task.folder for task in study.evaluations.values()]
    folders = [*measured, *sorted(baselines), *study.synthetic]
    return [f"{folder}/{name}.parquet" for folder in folders]


def analyses(study: Study) -> list[str]:
    """What the analyses found; none where the study keeps rows, whose metrics hold it."""
    return [] if study.rows else [f"{task.folder}/analysis.parquet" for task in study.analyses.values()]


def synthetic(study: Study) -> list[str]:
    """What the synthetic trials found, one table a dictionary."""
    if study.rows:
        rows = study.other_rows.items()
        return _kept(study, [name for name, folder in rows if folder in study.synthetic], "metrics")
    return [f"{folder}/metrics.parquet" for folder in study.synthetic]


def agreement(study: Study) -> list[str]:
    """How the synthetic trials, if any, agree with the published ones; named by what they are."""
    parts = list(study.synthetic)
    return [f"{RESULTS}/synthetic/agreement-{digest(parts)[:12]}/metrics.parquet"] if parts else []


def curves(study: Study) -> list[str]:
    """The learning curve of every run."""
    if study.rows:
        return _kept(study, study.run_rows, "curve")
    return [f"{run.path}/training.csv" for run in study.runs]


def pools(study: Study) -> list[str]:
    """The manifest of every pool; none where the study keeps rows, which need no activations."""
    return [
        f"{RESULTS}/{model.label}/{study.corpus}/layer{layer}/pool/{name}.json"
        for model in study.models.values()
        for layer in model.layers
        for name in _pools(study, model.label)
        if not study.rows
    ]


def weights(folder: str) -> str:
    """What training leaves in a run's folder."""
    return f"{folder}/weights.safetensors"


def training_pool(recipe: Recipe) -> str:
    """What stands for the pool that is trained on: a list of shards where they are streamed."""
    return "train.shards" if recipe.stream else "train"


def _pools(study: Study, model: str) -> list[str]:
    """The names of a model's pools, one for each split."""
    train = training_pool(study.recipe_settings)
    return [train if split == "train" else split for split in study.shards(model)]


def _pool(run: Run, name: str) -> str:
    return f"{RESULTS}/{run.model}/{run.corpus}/layer{run.layer}/pool/{name}.json"


def _kept(study: Study, names: Iterable[str], table: str) -> list[str]:
    return [f"{study.rows}/{name}.{table}.parquet" for name in names]
