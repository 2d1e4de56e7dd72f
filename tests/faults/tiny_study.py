"""A study of seconds: a random model of width 16, generated text, four runs."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from expander_sae.storage.files import sha256_file
from expander_sae.study.study import Study, load_config
from tests.faults.processes import SCRIPTS, Ended, run, script

ROOT = SCRIPTS.parents[1]
FINAL = ("results/metrics.parquet", "results/documents.parquet")
ENVIRONMENT = {
    "EXPANDER_SAE_PYTHON": sys.executable,
    "EXPANDER_SAE_SCRIPTS": str(SCRIPTS),
    "EXPANDER_SAE_DEVICE": "cpu",
    "EXPANDER_SAE_BACKEND": "torch",
    "EXPANDER_SAE_THREADS": "1",
    "EXPANDER_SAE_BATCH_TOKENS": "512",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
CHECKPOINT_EVERY = 20


def configuration(folder: Path) -> dict[str, Any]:
    """The study's configuration; the model and the text lie in `folder`."""
    return {
        "models": [
            {
                "name": "tiny",
                "source": "folder",
                "location": str(folder / "model"),
                "width": 16,
                "depth": 3,
                "layers": [1],
            }
        ],
        "corpus": {
            "name": "words",
            "source": "files",
            "location": str(folder / "texts" / "*.jsonl"),
            "context": 32,
        },
        "tokens": {"train": 1024, "test": 256, "ce_sequences": 4, "shard": 512},
        "training": {"steps": 100, "batch_size": 32, "resample_every": 25},
        "grid": {"n": 48, "d": [4], "k": [3], "seeds": [0, 1]},
        "runs": [{"support": "expander"}, {"support": "dense", "seeds": [0]}],
        "evaluation": {"cross_entropy": ["encoder"]},
        "compute": {"device": "cpu", "backend": "torch", "batch_tokens": 512},
    }


def write_inputs(folder: Path) -> None:
    """Save the model and write 600 documents of random words."""
    from tests.tiny_models import save_tiny_model

    save_tiny_model(folder / "model")
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 7))) for _ in range(400)]
    (folder / "texts").mkdir()
    lines = ['{"text": "' + " ".join(draw.choices(words, k=12)) + '"}\n' for _ in range(600)]
    (folder / "texts" / "words.jsonl").write_text("".join(lines))


def snakemake(folder: Path, *arguments: str) -> list[str]:
    """The command that runs the workflow in `folder`."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", str(ROOT / "Snakefile")]
    return [*command, "--directory", str(folder), "--configfile", str(folder / "study.yaml"), *arguments]


@dataclass(frozen=True)
class Job:
    """A job's stage and command line."""

    stage: str
    arguments: tuple[str, ...]


class TinyStudy:
    """The study in a folder: what its jobs are, and how to run them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_inputs(folder)
        config = configuration(folder)
        (folder / "study.yaml").write_text(yaml.safe_dump(config))
        self.study = Study(load_config(config))
        self.jobs = self._plan()

    def _plan(self) -> list[Job]:
        """The jobs as the workflow would run them, in an order that it would choose."""
        command = snakemake(self.folder, "--dry-run", "--printshellcmds", "--", FINAL[0])
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        planned = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=self.folder
        )
        found = re.findall(
            r'"\$EXPANDER_SAE_SCRIPTS"/(?!summary)(\w+\.py)(.*)', planned.stdout + planned.stderr
        )
        if not found:
            raise RuntimeError(planned.stdout + planned.stderr)
        jobs = [
            Job(name.removesuffix(".py"), (str(SCRIPTS / name), *shlex.split(rest))) for name, rest in found
        ]
        shutil.rmtree(self.folder / ".snakemake", ignore_errors=True)
        return [*jobs, Job("collect", ())]

    def work(self, job: Job) -> Callable[[], None]:
        """What the job's process does."""
        if job.stage == "collect":
            return self._collect
        inner = script(list(job.arguments))

        def work() -> None:
            from expander_sae.training import run_folder

            os.environ.update(ENVIRONMENT)
            run_folder.train_runs = partial(run_folder.train_runs, checkpoint_every=CHECKPOINT_EVERY)
            inner()

        return work

    def _collect(self) -> None:
        from expander_sae.errors import reported_to_user
        from expander_sae.measurements import tables

        folders = [task.folder for task in self.study.evaluations.values()]
        folders += sorted(task.folder for task in self.study.baselines.values())
        with reported_to_user():
            tables.collect_metrics([f"{name}/metrics.parquet" for name in folders], FINAL[0])
            tables.collect_documents([f"{name}/documents.parquet" for name in folders], FINAL[1])

    def run(self, job: Job, cwd: Path, **how: Any) -> Ended:
        """Run a job in `cwd`, in a child; see `processes.run`."""
        return run(self.work(job), cwd, **how)

    def run_all(self, cwd: Path) -> list[Ended]:
        """Run every job; stops at the first that fails."""
        ended = []
        for job in self.jobs:
            ended.append(self.run(job, cwd))
            if ended[-1].code:
                break
        return ended


def snapshot(folder: Path) -> dict[str, str]:
    """sha256 of every file below results/ that holds no times; logs are left out."""
    found = {}
    for path in sorted((folder / "results").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("results/logs/") and path.name != "timings.json":
            found[name] = sha256_file(path)
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> tuple[list[str], list[str]]:
    """(files that differ or are left over, files that are lost)."""
    wrong = [name for name in found if found[name] != expected.get(name)]
    return wrong, [name for name in expected if name not in found]
