"""Asking snakemake what it would do, and faking what it has done."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from expander_sae.figures.catalogue import outputs as figure_files
from expander_sae.report.table_names import outputs as table_files
from expander_sae.study.study import Study, load_config

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("benchmarks", "config.yaml", "configs", "expander_sae", "Makefile", "profiles", "pyproject.toml")
PARTS += ("requirements.lock", "resources", "Snakefile", "workflow")
"""What of a checkout the workflow and `make frontier` read."""
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2"]
COMPILED = "expander_sae/kernels/__pycache__"
BEING_WRITTEN = shutil.ignore_patterns("*.pyc.*", "*.tmp.*")
"""Names under which another process writes what it has compiled: gone before they are copied."""


def checkout(folder):
    """Copy what the workflow reads into `folder`, with an interpreter where `make` has it: this one.

    Compiled kernels are those of this checkout: numba takes half a minute, and knows a file by time and size.
    """
    for name in PARTS:
        source, skipped = ROOT / name, shutil.ignore_patterns("__pycache__")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=skipped)
        else:
            shutil.copy(source, folder / name)
    (ROOT / COMPILED).mkdir(exist_ok=True)
    (folder / COMPILED).symlink_to(ROOT / COMPILED)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    return folder


def make(folder, target, timeout=600, **variables):
    """Run `make` in a checkout that counts as installed; returns the finished process."""
    given = [f"{name}={value}" for name, value in {"STAMP": "Makefile", **variables}.items()]
    # Not what a `make` around the tests was told.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", "--no-print-directory", target, *given],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**environment, "PYTHONPATH": str(folder)},
        cwd=folder,
    )


def snakemake(folder, config, *arguments, timeout=600, source=ROOT, snakefile="Snakefile"):
    """Run snakemake in `folder` with this configuration; returns the finished process."""
    path = Path(folder) / "config-of-the-test.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [
        *SNAKEMAKE,
        "--snakefile",
        str(source / snakefile),
        "--directory",
        str(folder),
        "--configfile",
        str(path),
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env=environment, cwd=folder
    )


def plan(folder, config, *targets, source=ROOT, snakefile="Snakefile"):
    """{rule: number of jobs} of a dry run, without the rule `all`; all training rules are `train`."""
    done = snakemake(
        folder, config, "--dry-run", "--quiet", "all", "--", *targets, source=source, snakefile=snakefile
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    table = text.partition("Job stats:")[2].partition("total")[0]
    counts: dict[str, int] = {}
    for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE):
        # Settings with other seeds have a rule of their own: train_0, train_0_1, ...
        name = re.sub(r"^train_[\dto_]+$", "train", name)
        counts[name] = counts.get(name, 0) + int(count)
    counts.pop("all", None)
    return counts


def pretend_finished(folder, config):
    """Leave a folder as a finished run does: empty files, and snakemake's record of their jobs."""
    study = Study(load_config(config))
    files = []
    for label, model in study.models.items():
        corpus = f"results/{label}/{study.corpus}"
        files += [f"results/{label}/model.json", f"{corpus}/tokens.parquet", f"{corpus}/corpus.json"]
        for layer in model.layers:
            for split, count in study.shards(label).items():
                files += [f"{corpus}/layer{layer}/shards/{split}-{i:05d}.parquet" for i in range(count)]
        for layer in model.layers:
            for split in study.shards(label):
                pool = f"{corpus}/layer{layer}/pool/{split}"
                files += [f"{pool}.f32", f"{pool}.json", f"{pool}.tokens.safetensors"]
    files += [run.mask for run in study.runs if run.mask]
    for run in study.runs:
        files += [f"{study.baseline(run).folder}/{name}.parquet" for name in ("metrics", "documents")]
    for run in study.runs:
        files += [f"{run.path}/{name}" for name in ("weights.safetensors", "run.json", "training.csv")]
    for task in study.evaluations.values():
        files += [f"{task.folder}/{name}.parquet" for name in ("metrics", "documents")]
    touch(folder, config, [*files, *COLLECTED])


COLLECTED = [
    *(f"results/{name}.parquet" for name in ("metrics", "documents", "curves", "timings")),
    *(f"results/{name}" for name in ("provenance.json", "frontier.pdf", "frontier.png")),
    *("results/claims.json", "results/report.html"),
    *figure_files("results/figures"),
    *table_files("results/tables"),
]
"""What is made from all runs together."""


def touch(folder, config, files):
    """Leave these files, empty, with snakemake's record that they are up to date."""
    for name in dict.fromkeys(files):
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = snakemake(folder, config, "--touch", "--forceall", "--quiet", "all")
    assert done.returncode == 0, done.stdout + done.stderr
