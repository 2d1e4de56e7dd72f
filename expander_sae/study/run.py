"""Runs as they are planned: what tells one from another, where it lies and what its jobs are told.

Imports neither torch, numpy nor pandas: thousands of runs are planned in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from expander_sae.masks.supports import support_of

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


@dataclass(frozen=True)
class Run:
    """One training: everything that tells it from another, and how it is measured.

    Equality and hash leave out what follows from the labels (`recipe_settings`) and what is
    measured afterwards (`evaluation`, `analysis`).
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
    analysis: dict[str, Any] = field(compare=False, repr=False)

    @cached_property
    def cell(self) -> str:
        """The path without results/ and seed: what the seeds of one setting share."""
        return (
            f"{self.model}/{self.corpus}/layer{self.layer}/{self.recipe}_t{self.train_tokens}_s{self.steps}"
            f"/{self.support}-{self.encoder}/n{self.n}_d{self.d}_k{self.k}"
        )

    @cached_property
    def path(self) -> str:
        """The run's folder."""
        return f"{RESULTS}/{self.cell}_seed{self.seed}"

    @property
    def mask(self) -> str | None:
        """The mask's file; None where no recipe generates one."""
        if support_of(self.support).make is None:
            return None
        return f"{RESULTS}/masks/{self.support}_m{self.m}_n{self.n}_d{self.d}_seed{self.seed}.json"

    @cached_property
    def dense(self) -> Run:
        """The full dense tied run that this one is compared with or pruned from: same layer, data,
        recipe, n, k and seed. It is trained and not measured, unless the study asks for it."""
        nothing: dict[str, Any] = {"inference": [], "cross_entropy": []}
        return replace(
            self,
            support="dense",
            encoder="tied",
            d=self.m,
            evaluation=self.evaluation | nothing,
            analysis=self.analysis | {"analyses": [], "pursuits": []},
        )

    @property
    def parent(self) -> Run | None:
        """The run whose weights this one starts from, if any."""
        return self.dense if support_of(self.support).parent else None

    def train_spec(self) -> dict[str, Any]:
        """What the training job is told."""
        # Not dataclasses.asdict, which takes a second for thousands of runs.
        return {name: getattr(self, name) for name in (*RUN_COLUMNS, "recipe_settings")}

    def eval_spec(self) -> dict[str, Any]:
        """What the evaluation job is told."""
        return dict(self.evaluation)


@dataclass(frozen=True)
class Cell:
    """Seeds of one setting that share a job."""

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


def cells_of(runs: tuple[Run, ...]) -> dict[str, Cell]:
    """Cell name → its runs, in the order of the seeds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.cell, []).append(run)
    return {
        name: Cell(name, tuple(sorted(group, key=lambda run: run.seed))) for name, group in groups.items()
    }
