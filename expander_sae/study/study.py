"""A configuration's list of runs, where each lies and what its jobs are told."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from operator import attrgetter
from typing import Any

from expander_sae.activations.splits import VALIDATION, shard_counts
from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import CELLS_ON_GPU, TRAININGS_ON_GPU
from expander_sae.model.precisions import FLOAT32, RUN_PRECISIONS
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.study import recipes
from expander_sae.study.blocks import Config, as_list
from expander_sae.study.config import load_config
from expander_sae.study.expand import Labels, collect
from expander_sae.study.jobs import Job, Model, Task, jobs_of, together
from expander_sae.study.kept_tables import OTHER_TABLES, RUN_TABLES, folder_name, row_name
from expander_sae.study.labels import label_corpus, label_model
from expander_sae.study.references import with_references
from expander_sae.study.run import RESULTS, Run
from expander_sae.study.sweep import sweep_of

__all__ = ["Job", "Model", "Run", "Study", "Task", "load_config"]


class Study:
    """The runs of a configuration that `load_config` has checked.

    Its `runs` are those that are measured; `left_out` says what the configuration names and the study does
    not hold, and why. Runs whose rows are among the files `recorded` in `rows` are done: `pending` has the
    others, and so have `cells`, `trained` and `trainings`.
    """

    def __init__(self, config: Config, recorded: Collection[str] = frozenset(), gpu: bool = False) -> None:
        self.config, self._recorded, self.gpu = config, recorded, gpu
        training = {key: value for key, value in config["training"].items() if key != "steps"}
        self.recipe, self.recipe_settings = recipes.resolve(config["recipe"], training)
        self.corpus_spec = label_corpus(config["corpus"])
        self.corpus: str = self.corpus_spec["label"]
        self._model_specs = {
            entry["name"]: label_model({key: entry[key] for key in entry if key != "layers"})
            for entry in config["models"]
        }
        labels = Labels(self._model_specs, self.corpus, self.recipe, self.recipe_settings)
        runs, self.left_out = collect(config, labels)
        if not runs:
            left_out = "\n".join(self.left_out)
            raise UserError(f"config: runs: found none to do, expected one or more\n{left_out}")
        self.runs, without = with_references(runs)
        self.left_out += without
        self.sweep = sweep_of(config, self.runs)

    @property
    def rows(self) -> str | None:
        """Folder of the rows of finished runs; None where the study keeps none."""
        return f"{self.config['study']['folder']}/rows" if "study" in self.config else None

    @cached_property
    def run_rows(self) -> dict[str, Run]:
        """Name of a run's rows → the run."""
        return {row_name(run): run for run in self.runs}

    @cached_property
    def other_rows(self) -> dict[str, str]:
        """Name of rows that belong to no run → the folder of results/ that they come from."""
        folders = [*(task.folder for task in self.baselines.values()), *self.synthetic]
        return {folder_name(folder): folder for folder in folders}

    def is_recorded(self, name: str) -> bool:
        """Whether every table of these rows is there."""
        tables = RUN_TABLES if name in self.run_rows else OTHER_TABLES
        return all(f"{name}.{table}.parquet" in self._recorded for table in tables)

    @cached_property
    def pending(self) -> tuple[Run, ...]:
        """The runs whose rows are not there yet."""
        if not self._recorded:
            return self.runs
        return tuple(run for name, run in self.run_rows.items() if not self.is_recorded(name))

    @cached_property
    def cells(self) -> dict[str, Job]:
        """Cell name → its pending runs, in the order of the seeds."""
        return jobs_of(self.pending)

    @cached_property
    def measured(self) -> dict[str, Job]:
        """What each job of evaluation or analysis measures: at most `compute.cells_per_job` cells."""
        asked = self.config["compute"]["cells_per_job"]
        size = (CELLS_ON_GPU if self.gpu else 1) if asked == "auto" else asked
        return together(self.cells.values(), size, lambda run: None)

    @cached_property
    def measured_by(self) -> dict[str, str]:
        """Folder of a run → the name of its job among `measured`."""
        return {run.path: name for name, job in self.measured.items() for run in job.runs}

    @cached_property
    def trained(self) -> tuple[Run, ...]:
        """Every run that is trained: pending ones, those that they start from or are compared with, and swept
        ones."""
        by_path = {run.path: run for run in self.runs}
        parents = [parent for run in self.pending for parent in run.ancestors]
        references = [by_path[run.analysis.reference] for run in self.pending if run.analysis.reference]
        swept = self.sweep.runs if self.sweep else ()
        return tuple(dict.fromkeys([*self.pending, *parents, *references, *swept]))

    @cached_property
    def trainings(self) -> tuple[Job, ...]:
        """What each training job trains: at most `compute.seeds_per_job` seeds of a cell, and at most
        `compute.cells_per_job` cells of one number of steps; or, where `compute.trainings_per_job` says so,
        as on a GPU, as many cells as have so many runs."""
        size = self.config["compute"]["seeds_per_job"]
        found = [
            Job(cell.name, cell.runs[start : start + size])
            for cell in jobs_of(self.trained).values()
            for start in range(0, len(cell.runs), size)
        ]
        # What a run starts from has fewer ancestors: it is never of the same job. A job trains, rounds or
        # imports.
        size = self._cells_of_a_training(max((len(job.runs) for job in found), default=1))
        alike = attrgetter("recipe", "steps", "is_trained", "is_imported", "codes")
        jobs = together(found, size, lambda run: (*alike(run), len(run.ancestors)))
        return tuple(jobs.values()) if size > 1 else tuple(found)

    def _cells_of_a_training(self, seeds: int) -> int:
        """Most cells of a training job, with so many seeds in each."""
        asked = self.config["compute"]["trainings_per_job"]
        if asked == "auto" and not self.gpu:
            cells = self.config["compute"]["cells_per_job"]
            return 1 if cells == "auto" else int(cells)
        return max(1, (TRAININGS_ON_GPU if asked == "auto" else asked) // seeds)

    def on_gpu(self) -> Study:
        """The same study as a machine with a GPU plans it."""
        return Study(self.config, self._recorded, gpu=True)

    @cached_property
    def models(self) -> dict[str, Model]:
        """Label → the models that have runs."""
        found = {}
        for label, spec in ((spec["label"], spec) for spec in self._model_specs.values()):
            if runs := [run for run in self.runs if run.model == label]:
                layers = tuple(sorted({run.layer for run in runs}))
                found[label] = Model(label, spec, layers, max(run.train_tokens for run in runs))
        return found

    def needs(self, model: str) -> dict[str, int]:
        """What is drawn from the corpus for a model: tokens, and sequences for `ce`."""
        train, asked = self.models[model].train_tokens, self.config["tokens"]
        needs = {"train": train, "test": asked["test"], "ce": asked["ce_sequences"], "shard": asked["shard"]}
        return needs | ({VALIDATION: asked[VALIDATION]} if self.sweep else {})

    def shards(self, model: str) -> dict[str, int]:
        """How many shards each split of a model's corpus has."""
        return shard_counts(self.needs(model), self.config["corpus"]["context"])

    @property
    def remote(self) -> bool:
        """Whether shards lie in object storage, each with a receipt in its place."""
        return self.config["tokens"]["address"] is not None

    @property
    def shard_suffix(self) -> str:
        """Of the file that stands for a shard."""
        return "json" if self.remote else "parquet"

    def extractions(self, model: str) -> list[tuple[str, range]]:
        """(split, shards) of each job of extraction: at most `compute.shards_per_job` shards."""
        size = self.config["compute"]["shards_per_job"]
        return [
            (split, range(first, min(first + size, count)))
            for split, count in self.shards(model).items()
            for first in range(0, count, size)
        ]

    def shard_files(self, model: str, layer: int | str, split: str) -> list[str]:
        """Every shard of a split, or its receipt, in order."""
        count = self.shards(model)[split]
        folder = f"results/{model}/{self.corpus}/layer{layer}/shards"
        return [f"{folder}/{split}-{shard:05d}.{self.shard_suffix}" for shard in range(count)]

    def shard_spec(self, model: str, split: str) -> dict[str, Any]:
        """What every extraction job of a split is told; its outputs name the layers and the shards."""
        size = self.config["tokens"]["shard"]
        spec = {"model": model, "corpus": self.corpus, "split": split, "shard_tokens": size}
        stored = self.config["tokens"]["stored"]
        spec |= {"stored": stored} if stored != "float32" else {}
        spec |= {"address": self.config["tokens"]["address"]} if self.remote else {}
        # Its documents are those that follow these splits', and other ones where these are longer.
        after = {"after": {name: self.shards(model)[name] for name in ("test", "ce")}}
        return spec | (after if split == VALIDATION else {})

    def pool_spec(self, model: str, layer: int, split: str) -> dict[str, Any]:
        """What the job is told that joins the shards of a split."""
        count = self.shards(model)[split]
        spec = {"model": model, "corpus": self.corpus, "layer": layer, "split": split, "shards": count}
        return spec | ({"receipts": True} if self.remote else {})

    @cached_property
    def evaluations(self) -> dict[str, Task]:
        """Name of a job of `measured` → its evaluation: each pending run's folder and `Evaluation`."""
        return self._tasks("evaluation", lambda run: run.evaluation.json)

    @cached_property
    def analyses(self) -> dict[str, Task]:
        """The same of its analysis, where some run is analysed: each such run's folder and `Analysis`."""
        return self._tasks("analysis", lambda run: run.analysis.json if run.analysis.analyses else {})

    @cached_property
    def swept(self) -> dict[str, Job]:
        """Cell name → its swept runs."""
        return jobs_of(self.sweep.runs) if self.sweep else {}

    @cached_property
    def validations(self) -> dict[str, Task]:
        """Cell name → the measurement of its swept runs on the validation split."""
        asked, found = self.sweep.asked if self.sweep else {}, {}
        for cell, job in self.swept.items():
            spec = {run.path: asked for run in job.runs}
            found[cell] = Task(f"{RESULTS}/{cell}/{_asked(spec, 'evaluation')}", spec)
        return found

    def _tasks(self, stage: str, asked: Callable[[Run], dict[str, Any]]) -> dict[str, Task]:
        """Job → what this stage does for it, in a folder that is named by what it is told."""
        found = {}
        for name, job in self.measured.items():
            if spec := {run.path: settings for run in job.runs if (settings := asked(run))}:
                found[name] = Task(f"{RESULTS}/{name}/{_asked(spec, stage)}", spec)
        return found

    def baseline(self, run: Run) -> Task:
        """The measurement of the model itself that the run is measured against; one of `baselines`."""
        return self.baselines[run.model, run.layer, run.train_tokens]

    @cached_property
    def baselines(self) -> dict[tuple[str, int, int], Task]:
        """(model, layer, training tokens) → the cross-entropies of the model without an autoencoder.

        The key `train_cross_entropy` is there where a run is also measured on its training documents.
        """
        runs: dict[tuple[str, int, int], list[Run]] = {}
        for run in self.runs:
            runs.setdefault((run.model, run.layer, run.train_tokens), []).append(run)
        found = {}
        for (model, layer, tokens), measured in runs.items():
            spec: dict[str, Any] = {
                "layer": layer,
                "tokens": tokens,
                "sequences": self.config["tokens"]["ce_sequences"],
                "recipe_settings": self.recipe_settings.settings,
                "columns": measured[0].unaided.told,
            }
            if any(run.evaluation.train_cross_entropy for run in measured):
                spec["train_cross_entropy"] = True
            where = f"{RESULTS}/{model}/{self.corpus}/layer{layer}/baseline/{self.recipe}_t{tokens}"
            found[model, layer, tokens] = Task(f"{where}-{_asked(spec, 'evaluation')}", spec)
        return found

    @cached_property
    def timed(self) -> tuple[Run, ...]:
        """The runs that `results/speed.parquet` has rows of, recorded or not: tied expanders, and the tied
        dense runs with as many features."""
        # Every precision computes in float32, whatever was trained: the runs of one of them are enough.
        own = [run for run in self.runs if not run.is_imported]
        widest = min((run.precision for run in own), key=RUN_PRECISIONS.index, default=FLOAT32)
        wide = [run for run in own if run.precision == widest and not run.is_pursued]
        tied = [run for run in wide if run.encoder == "tied" and run.support in ("expander", "dense")]
        sizes = {(run.m, run.n) for run in tied if run.support == "expander"}
        return tuple(run for run in tied if (run.m, run.n) in sizes)

    def speed_spec(self) -> str:
        """Digest of all that the rows of `results/speed.parquet` say but their times."""
        return digest(sorted(list(run.told.values()) for run in self.timed))

    @cached_property
    def synthetic(self) -> dict[str, dict[str, Any]]:
        """Folder of synthetic trials, one for each d → what the job is told that recovers planted codes."""
        if "synthetic" not in self.config:
            return {}
        asked, found = self.config["synthetic"], {}
        spec = {key: asked[key] for key in ("m", "n", "masks", "trials")}
        spec |= {key: sorted(as_list(asked[key])) for key in ("k", "sigma")}
        for d in as_list(asked["d"]):
            told = spec | {"d": d}
            where = f"{RESULTS}/synthetic/m{spec['m']}_n{spec['n']}_d{d}"
            found[f"{where}-{_asked(told, 'synthetic')}"] = told
        return found


def _asked(spec: dict[str, Any], stage: str) -> str:
    """Part of a folder's name: a digest of what its job is told and of the stages that it depends on."""
    return digest([spec, lineage(stage)])[:12]
