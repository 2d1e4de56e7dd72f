"""What the jobs of a study are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from expander_sae.study.run import Run


@dataclass(frozen=True)
class Task:
    """What a job is told, as a JSON object, and the folder that it writes."""

    folder: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Runs of one cell that a job trains or measures, by their seeds, and the cell's name."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)


@dataclass(frozen=True)
class Model:
    """A model of the config, the layers that its runs use, and the tokens of its largest training pool."""

    label: str
    spec: dict[str, Any]
    layers: tuple[int, ...]
    train_tokens: int


def jobs_of(runs: Iterable[Run]) -> dict[str, Job]:
    """Cell name → its runs, in the order of the seeds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.cell.name, []).append(run)
    return {name: Job(name, tuple(sorted(group, key=lambda run: run.seed))) for name, group in groups.items()}
