"""A configuration's list of runs, where each lies and what its jobs are told.

Imports neither torch, numpy nor pandas: the workflow plans thousands of jobs with it in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from functools import cached_property
from typing import Any

from expander_sae.activations.splits import shard_counts
from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.study import recipes
from expander_sae.study.blocks import Config, as_list
from expander_sae.study.config import load_config
from expander_sae.study.expand import Labels, collect, matched
from expander_sae.study.kept_tables import OTHER_TABLES, RUN_TABLES, folder_name, row_name
from expander_sae.study.labels import label_corpus, label_model
from expander_sae.study.run import RESULTS, RUN_COLUMNS, Cell, Model, Run, cells_of

__all__ = ["RUN_COLUMNS", "Cell", "Model", "Run", "Study", "load_config", "matched"]


class Study:
    """The runs of a configuration that `load_config` has checked.

    recorded: names of the files in `rows`. Runs whose rows are among them are done: `pending` has the
    others, and so have `cells`, `trained` and `trainings`.

    runs: those that are measured. left_out: what the configuration names and the study does not
    hold, with the reason.
    """

    def __init__(self, config: Config, recorded: Collection[str] = frozenset()) -> None:
        self.config, self._recorded = config, recorded
        training = dict(config["training"])
        training.pop("steps")
        self.recipe, settings = recipes.resolve(config["recipe"], training)
        self.recipe_settings: dict[str, Any] = asdict(settings)
        self.corpus_spec = label_corpus(config["corpus"])
        self.corpus: str = self.corpus_spec["label"]
        self._model_specs = {
            entry["name"]: label_model({key: entry[key] for key in entry if key != "layers"})
            for entry in config["models"]
        }
        labels = Labels(self._model_specs, self.corpus, self.recipe, self.recipe_settings)
        self.runs, self.left_out = collect(config, labels)
        if not self.runs:
            raise UserError(
                "config: runs: found none to do, expected one or more\n" + "\n".join(self.left_out)
            )
        self.left_out += self._without_reference()

    def _without_reference(self) -> list[str]:
        alone = {
            f"{run.cell}: novelty, since " + _no_reference(run): None
            for run in self.runs
            if self._compares(run) and not self._reference(run)
        }
        return list(alone)

    @property
    def rows(self) -> str | None:
        """Folder of the rows of finished runs; None where the study keeps none."""
        return f"{self.config['study']['folder']}/rows" if "study" in self.config else None

    @cached_property
    def run_rows(self) -> dict[str, Run]:
        """Name of a run's rows → the run."""
        return {row_name(run, self._run_analysis(run)): run for run in self.runs}

    @cached_property
    def other_rows(self) -> dict[str, str]:
        """Name of rows that belong to no run → the folder of results/ that they come from."""
        folders = [*self._baselines.values(), *self.synthetic]
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
    def cells(self) -> dict[str, Cell]:
        """Cell name → its pending runs, in the order of the seeds."""
        return cells_of(self.pending)

    @cached_property
    def by_path(self) -> dict[str, Run]:
        """Run folder → run."""
        return {run.path: run for run in self.runs}

    @cached_property
    def trained(self) -> tuple[Run, ...]:
        """Every run that is trained: pending ones, and those that they start from or are compared with."""
        others = [run.parent for run in self.pending]
        others += [self._compared_with(run) for run in self.pending if self._compares(run)]
        return tuple(dict.fromkeys([*self.pending, *(run for run in others if run)]))

    @cached_property
    def trainings(self) -> tuple[Cell, ...]:
        """What each training job trains: at most `compute.seeds_per_job` seeds of one setting."""
        size = self.config["compute"]["seeds_per_job"]
        return tuple(
            Cell(cell.name, cell.runs[start : start + size])
            for cell in cells_of(self.trained).values()
            for start in range(0, len(cell.runs), size)
        )

    @cached_property
    def models(self) -> dict[str, Model]:
        """Label → the models that have runs."""
        layers: dict[str, set[int]] = {}
        for run in self.runs:
            layers.setdefault(run.model, set()).add(run.layer)
        return {
            spec["label"]: Model(spec["label"], spec, tuple(sorted(layers[spec["label"]])))
            for spec in self._model_specs.values()
            if spec["label"] in layers
        }

    def train_tokens(self, model: str) -> int:
        """Tokens of the largest training pool that a model's runs ask for."""
        return self._train_tokens[model]

    @cached_property
    def _train_tokens(self) -> dict[str, int]:
        most: dict[str, int] = {}
        for run in self.runs:
            most[run.model] = max(most.get(run.model, 0), run.train_tokens)
        return most

    def needs(self, model: str) -> dict[str, int]:
        """What is drawn from the corpus for a model: tokens, and sequences for `ce`."""
        tokens = self.config["tokens"]
        return {
            "train": self.train_tokens(model),
            "test": tokens["test"],
            "ce": tokens["ce_sequences"],
            "shard": tokens["shard"],
        }

    def shards(self, model: str) -> dict[str, int]:
        """How many shards each split of a model's corpus has."""
        return shard_counts(self.needs(model), self.config["corpus"]["context"])

    def shard_spec(self, model: str, split: str, shard: int) -> dict[str, Any]:
        """What the extraction job of a shard is told; the layers are those of its outputs."""
        size = self.config["tokens"]["shard"]
        return {"model": model, "corpus": self.corpus, "split": split, "shard": shard, "shard_tokens": size}

    def pool_spec(self, model: str, layer: int, split: str) -> dict[str, Any]:
        """What the job is told that joins the shards of a split."""
        count = self.shards(model)[split]
        return {"model": model, "corpus": self.corpus, "layer": layer, "split": split, "shards": count}

    def measurements(self, cell: str) -> str:
        """Folder of a cell's tables; named by what is asked, so that other settings give another."""
        return self._measurements[cell]

    @cached_property
    def _measurements(self) -> dict[str, str]:
        return _folders(self.cells, self.evaluation_spec, "evaluation")

    def evaluation_spec(self, cell: str) -> dict[str, Any]:
        """What the evaluation job of a cell is told: each run's folder and settings."""
        return {run.path: run.eval_spec() for run in self.cells[cell].runs}

    @cached_property
    def analysed(self) -> tuple[str, ...]:
        """The cells of which some run is analysed."""
        return tuple(
            name for name, cell in self.cells.items() if any(run.analysis["analyses"] for run in cell.runs)
        )

    def analysis(self, cell: str) -> str:
        """Folder of the table that the analysis of a cell writes, which is one of `analysed`."""
        return self._analyses[cell]

    @cached_property
    def _analyses(self) -> dict[str, str]:
        return _folders(self.analysed, self.analysis_spec, "analysis")

    def analysis_spec(self, cell: str) -> dict[str, Any]:
        """What the analysis job of a cell is told: each analysed run's folder and settings.

        `reference` is the folder of the dense run that novelty is measured against, or null.
        """
        told = {run.path: self._run_analysis(run) for run in self.cells[cell].runs}
        return {path: asked for path, asked in told.items() if asked}

    def _run_analysis(self, run: Run) -> dict[str, Any] | None:
        if not run.analysis["analyses"]:
            return None
        return {**run.analysis, "reference": self._reference(run) if self._compares(run) else None}

    @staticmethod
    def _compares(run: Run) -> bool:
        return "novelty" in run.analysis["analyses"]

    def _reference(self, run: Run) -> str | None:
        other = self._compared_with(run)
        return None if other is None else other.path

    def _compared_with(self, run: Run) -> Run | None:
        """The full dense tied run that features are new against: of the same seed, and for such a run itself
        that of the next seed, the last one taking the first."""
        if run.parent is not None:
            return None  # its features are those of the dense run that it was made from
        if run.path != run.dense.path:
            return run.dense if run.dense.path in self.by_path else None
        seeds = self._dense_seeds[run.cell]
        other = seeds[(seeds.index(run) + 1) % len(seeds)]
        return None if other is run else other

    @cached_property
    def _dense_seeds(self) -> dict[str, tuple[Run, ...]]:
        dense = tuple(run for run in self.runs if (run.support, run.encoder) == ("dense", "tied"))
        return {name: cell.runs for name, cell in cells_of(dense).items()}

    @cached_property
    def timed(self) -> tuple[Run, ...]:
        """The runs that `results/speed.parquet` has rows of, recorded or not: tied expanders, and the tied
        dense runs with as many features."""
        tied = [run for run in self.runs if run.encoder == "tied"]
        sizes = {(run.m, run.n) for run in tied if run.support == "expander"}
        return tuple(
            run
            for run in tied
            if run.support == "expander" or (run.support == "dense" and (run.m, run.n) in sizes)
        )

    def speed_spec(self) -> str:
        """Digest of all that the rows of `results/speed.parquet` say but their times."""
        return digest(sorted([getattr(run, name) for name in RUN_COLUMNS] for run in self.timed))

    def baseline(self, run: Run) -> str:
        """Folder of the model's own cross-entropies that the run is measured against."""
        return self._baselines[run.model, run.layer, run.train_tokens]

    @cached_property
    def _baselines(self) -> dict[tuple[str, int, int], str]:
        found = {}
        for model, layer, tokens in dict.fromkeys((r.model, r.layer, r.train_tokens) for r in self.runs):
            spec = self.baseline_spec(model, layer, tokens)
            asked = digest([spec, lineage("evaluation")])[:12]
            where = f"{RESULTS}/{model}/{self.corpus}/layer{layer}/baseline"
            found[model, layer, tokens] = f"{where}/{self.recipe}_t{tokens}-{asked}"
        return found

    @cached_property
    def _leak_measured(self) -> set[tuple[str, int, int]]:
        asked = (run for run in self.runs if run.evaluation["train_cross_entropy"])
        return {(run.model, run.layer, run.train_tokens) for run in asked}

    def baseline_spec(self, model: str, layer: int, train_tokens: int) -> dict[str, Any]:
        """What the job is told that measures the model itself, without an autoencoder.

        `columns` are the run columns of its rows: no support, no encoder, zeros. The key
        `train_cross_entropy` is there where a run is also measured on its training documents.
        """
        m = self.models[model].spec["width"]
        seen = {"train_cross_entropy": True} if (model, layer, train_tokens) in self._leak_measured else {}
        return seen | {
            "layer": layer,
            "tokens": train_tokens,
            "sequences": self.config["tokens"]["ce_sequences"],
            "recipe_settings": self.recipe_settings,
            "columns": {
                "model": model,
                "corpus": self.corpus,
                "layer": layer,
                "recipe": self.recipe,
                "support": "none",
                "encoder": "none",
                "m": m,
                "n": 0,
                "d": 0,
                "k": 0,
                "train_tokens": train_tokens,
                "steps": 0,
                "seed": 0,
            },
        }

    def synthetic_spec(self, d: int) -> dict[str, Any]:
        """What the job is told that recovers planted codes from dictionaries with d nonzeros a column."""
        asked = self.config["synthetic"]
        lists = {key: sorted(as_list(asked[key])) for key in ("k", "sigma")}
        return {"d": d, **{key: asked[key] for key in ("m", "n", "masks", "trials")}, **lists}

    def synthetic_parts(self) -> list[str]:
        """Folder of each d's synthetic trials; empty where the configuration asks for none."""
        return list(self.synthetic)

    @cached_property
    def synthetic(self) -> dict[str, int]:
        """Folder of synthetic trials → its d."""
        if "synthetic" not in self.config:
            return {}
        stage, found = lineage("synthetic"), {}
        for d in as_list(self.config["synthetic"]["d"]):
            spec = self.synthetic_spec(d)
            asked = digest([spec, stage])[:12]
            found[f"{RESULTS}/synthetic/m{spec['m']}_n{spec['n']}_d{d}-{asked}"] = d
        return found


def _folders(cells: Iterable[str], spec: Callable[[str], Any], stage: str) -> dict[str, str]:
    """Cell → folder of the tables that this stage writes of it, named by what is asked."""
    versions = lineage(stage)
    return {cell: f"{RESULTS}/{cell}/{digest([spec(cell), versions])[:12]}" for cell in cells}


def _no_reference(run: Run) -> str:
    """Why a run's features cannot be compared with those of a dense one."""
    if run.parent is not None:
        return "it starts from the dense run of its seed"
    if run.path == run.dense.path:
        return "the study has no other seed of it"
    return "the study has no full dense tied run of its seed"
