"""What the jobs of a study are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from expander_sae.storage.files import digest
from expander_sae.study.run import Run


@dataclass(frozen=True)
class Task:
    """What a job is told, as a JSON object, and the folder that it writes."""

    folder: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Runs that a job trains or measures, of one cell or of several, and a name, which is a path."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def several_cells(self) -> bool:
        return any(run.cell != self.runs[0].cell for run in self.runs)


@dataclass(frozen=True)
class Model:
    """A model of the config, the layers that its runs use, and the tokens of its largest training pool."""

    label: str
    spec: dict[str, Any]
    layers: tuple[int, ...]
    train_tokens: int


def together(jobs: Iterable[Job], size: int, alike: Callable[[Run], Any]) -> dict[str, Job]:
    """Name → job, `size` jobs in one at most, of those that share a layer, its tokens and what `alike` says.

    A job alone keeps its name. Each process of Python loads torch and a language model again, which takes as
    long as many a measurement. Neighbours are dealt to different jobs, since they are of one kind: so jobs
    that run side by side take about equally long.
    """
    places: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        run = job.runs[0]
        key = (run.model, run.corpus, run.layer, run.train_tokens, alike(run))
        places.setdefault(key, []).append(job)
    found = {}
    for (model, corpus, layer, *_), neighbours in places.items():
        count = -(-len(neighbours) // size)
        for dealt in (neighbours[start::count] for start in range(count)):
            names = [job.name for job in dealt]
            several = f"{model}/{corpus}/layer{layer}/together/{digest(names)[:12]}"
            name = several if len(dealt) > 1 else names[0]
            found[name] = Job(name, tuple(run for job in dealt for run in job.runs))
    return found


def jobs_of(runs: Iterable[Run]) -> dict[str, Job]:
    """Cell name → its runs, in the order of the seeds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.cell.name, []).append(run)
    return {name: Job(name, tuple(sorted(group, key=lambda run: run.seed))) for name, group in groups.items()}
