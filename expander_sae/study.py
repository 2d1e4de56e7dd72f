"""A configuration's list of runs, where each lies and what its jobs are told.

Imports neither torch, numpy nor pandas: the workflow plans thousands of jobs with it in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

from expander_sae import recipes
from expander_sae.activations.splits import shard_counts
from expander_sae.blocks import AXES, Config, as_list, blocks, sizes
from expander_sae.config import load_config
from expander_sae.errors import UserError
from expander_sae.files import digest
from expander_sae.labels import label_corpus, label_model
from expander_sae.stages import lineage

__all__ = ["Cell", "Model", "Run", "Study", "load_config"]

RESULTS = "results"
RUN_COLUMNS = (
    "model",
    "corpus",
    "layer",
    "recipe",
    "support",
    "encoder",
    "m",
    "n",
    "d",
    "k",
    "train_tokens",
    "steps",
    "seed",
)
"""What tells a run from another, in the order of the tables' columns."""

_INFERENCES = ("encoder", "omp")


@dataclass(frozen=True)
class Run:
    """One training: everything that tells it from another, and how it is evaluated.

    Equality and hash leave out what follows from the labels (`recipe_settings`) and what is
    measured afterwards (`evaluation`).
    """

    model: str
    corpus: str
    layer: int
    recipe: str
    support: str
    encoder: str
    m: int
    n: int
    d: int
    k: int
    train_tokens: int
    steps: int
    seed: int
    recipe_settings: dict[str, Any] = field(compare=False, repr=False)
    evaluation: dict[str, Any] = field(compare=False, repr=False)

    @property
    def cell(self) -> str:
        """The path without results/ and seed: what the seeds of one setting share."""
        return (
            f"{self.model}/{self.corpus}/layer{self.layer}/{self.recipe}_t{self.train_tokens}_s{self.steps}"
            f"/{self.support}-{self.encoder}/n{self.n}_d{self.d}_k{self.k}"
        )

    @property
    def path(self) -> str:
        """The run's folder."""
        return f"{RESULTS}/{self.cell}_seed{self.seed}"

    @property
    def mask(self) -> str | None:
        """The mask's file; None for a dense dictionary."""
        if self.support == "dense":
            return None
        return f"{RESULTS}/masks/{self.support}_m{self.m}_n{self.n}_d{self.d}_seed{self.seed}.json"

    def train_spec(self) -> dict[str, Any]:
        """What the training job is told."""
        # Not dataclasses.asdict, which takes a second for thousands of runs.
        return {name: getattr(self, name) for name in (*RUN_COLUMNS, "recipe_settings")}

    def eval_spec(self) -> dict[str, Any]:
        """What the evaluation job is told."""
        return dict(self.evaluation)


@dataclass(frozen=True)
class Cell:
    """The seeds of one setting, which share an evaluation job."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)


@dataclass(frozen=True)
class Model:
    """A model of the config and the layers that its runs use."""

    label: str
    spec: dict[str, Any]
    layers: tuple[int, ...]


class Study:
    """The runs of a configuration that `load_config` has checked."""

    def __init__(self, config: Config) -> None:
        self.config = config
        training = dict(config["training"])
        training.pop("steps")
        self.recipe, settings = recipes.resolve(config["recipe"], training)
        self.recipe_settings: dict[str, Any] = asdict(settings)
        self.corpus_spec = label_corpus(config["corpus"])
        self.corpus: str = self.corpus_spec["label"]
        self._entries = {entry["name"]: entry for entry in config["models"]}
        self._model_specs = {
            name: label_model({key: entry[key] for key in entry if key != "layers"})
            for name, entry in self._entries.items()
        }
        self.left_out: list[str] = []
        self.runs: tuple[Run, ...] = tuple(self._collect())
        if not self.runs:
            raise UserError(
                "config: runs: found none to do, expected one or more\n" + "\n".join(self.left_out)
            )

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """Cell name → its runs, in the order of the seeds."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.cell, []).append(run)
        return {
            name: Cell(name, tuple(sorted(runs, key=lambda run: run.seed))) for name, runs in groups.items()
        }

    @cached_property
    def by_path(self) -> dict[str, Run]:
        """Run folder → run."""
        return {run.path: run for run in self.runs}

    @cached_property
    def models(self) -> dict[str, Model]:
        """Label → the models that have runs."""
        found = {}
        for spec in self._model_specs.values():
            layers = sorted({run.layer for run in self.runs if run.model == spec["label"]})
            if layers:
                found[spec["label"]] = Model(spec["label"], spec, tuple(layers))
        return found

    def train_tokens(self, model: str) -> int:
        """Tokens of the largest training pool that a model's runs ask for."""
        return max(run.train_tokens for run in self.runs if run.model == model)

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
        asked = digest([self.evaluation_spec(cell), lineage("evaluation")])[:12]
        return f"{RESULTS}/{cell}/{asked}"

    def baseline(self, run: Run) -> str:
        """Folder of the model's own cross-entropies that the run is measured against."""
        spec = self.baseline_spec(run.model, run.layer, run.train_tokens)
        asked = digest([spec, lineage("evaluation")])[:12]
        where = f"{RESULTS}/{run.model}/{run.corpus}/layer{run.layer}/baseline"
        return f"{where}/{run.recipe}_t{run.train_tokens}-{asked}"

    def evaluation_spec(self, cell: str) -> dict[str, Any]:
        """What the evaluation job of a cell is told: each run's folder and settings."""
        return {run.path: run.eval_spec() for run in self.cells[cell].runs}

    def baseline_spec(self, model: str, layer: int, train_tokens: int) -> dict[str, Any]:
        """What the job is told that measures the model itself, without an autoencoder.

        `columns` are the run columns of its rows: no support, no encoder, zeros.
        """
        m = self.models[model].spec["width"]
        return {
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

    def _collect(self) -> Iterator[Run]:
        found: dict[Run, Run] = {}
        reasons: dict[str, None] = {}
        for block, _ in blocks(self.config):
            for run in self._block_runs(block, reasons):
                known = found.get(run)
                found[run] = run if known is None else _merge(known, run)
        self.left_out = list(reasons)
        yield from found.values()

    def _block_runs(self, block: dict[str, Any], reasons: dict[str, None]) -> Iterator[Run]:
        evaluation = {
            "inference": _in_order(self.config["evaluation"]["inference"]),
            "cross_entropy": _in_order(block["cross_entropy"]),
            "test_tokens": self.config["tokens"]["test"],
            "ce_sequences": self.config["tokens"]["ce_sequences"],
        }
        for name in block["models"]:
            spec, m = self._model_specs[name], self._entries[name]["width"]
            layers = block["layers"] or as_list(self._entries[name]["layers"])
            for layer, n in product(layers, sizes(block, m)):
                for support, encoder, d, k, seed, tokens, steps in product(*(block[key] for key in AXES)):
                    width, features = d, n
                    if support == "dense":
                        width, features = m, matched(block["match"], m, n, d)
                        if block["match"] and features <= 2 * k:
                            reasons.setdefault(
                                f"{spec['label']}, k={k}: the dense run matched to d={d}, n={n} would have "
                                f"n'={features} features, at most 2k={2 * k}"
                            )
                            continue
                    yield Run(
                        model=spec["label"],
                        corpus=self.corpus,
                        layer=layer,
                        recipe=self.recipe,
                        support=support,
                        encoder=encoder,
                        m=m,
                        n=features,
                        d=width,
                        k=k,
                        train_tokens=tokens,
                        steps=steps,
                        seed=seed,
                        recipe_settings=self.recipe_settings,
                        evaluation=evaluation,
                    )


def matched(match: str | None, m: int, n: int, d: int) -> int:
    """Features of a dense dictionary with as many values as a sparse one of n columns of d."""
    if match is None:
        return n
    return d * n // (m if match == "decoder" else 2 * m)


def _merge(known: Run, again: Run) -> Run:
    """A run that two blocks name is measured in every way that either asks for."""
    both = {*known.evaluation["cross_entropy"], *again.evaluation["cross_entropy"]}
    return replace(known, evaluation={**known.evaluation, "cross_entropy": _in_order(both)})


def _in_order(names: Any) -> list[str]:
    return [name for name in _INFERENCES if name in names]
