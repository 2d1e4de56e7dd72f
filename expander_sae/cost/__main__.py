"""What a configuration takes: ``python -m expander_sae.cost config.yaml [--nodes N] [--json]``.

Prints the runs and jobs, tokens and disk, and of each stage the peak memory and the hours on a CPU,
on one GPU and on N nodes. Reads the configuration and fitted coefficients only; see docs/scaling.md.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from expander_sae.cost.disk_estimate import disk
from expander_sae.cost.job_estimates import Plan, Stage
from expander_sae.cost.time_model import CPU_FILE, GPU_FILE, Machine
from expander_sae.errors import UserError, reported_to_user
from expander_sae.study.study import Study, load_config

_ESTIMATED = {"omp": "pursuits", "jobs": "what a job takes beside them"}
"""Words for parts of a machine's coefficients."""


def makespan(seconds: Sequence[float], places: int) -> float:
    """Seconds until all jobs are done, the longest first, on so many places at once."""
    free = [0.0] * min(places, max(len(seconds), 1))
    for job in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def estimate(study: Study, cpu: Machine, gpu: Machine, nodes: int) -> dict[str, Any]:
    """Everything that the command prints.

    Of the hours `core` means one job after the other on a CPU core, `cpu` all cores of one machine, `gpu`
    one GPU and the same CPU, `nodes` and `gpu_nodes` that many of either. The stages follow one another;
    neither a queue nor a download is counted.
    """
    on_cpu, on_gpu = Plan(study, cpu), Plan(study.on_gpu(), gpu, cpu)
    places = max(1, cpu.cores // study.config["compute"]["threads"])
    stages = zip(on_cpu.stages(), on_gpu.stages(), strict=True)
    rows = [_row(slow, fast, places, nodes) for slow, fast in stages]
    needs = [study.needs(label) for label in study.models]
    tokens = {
        "train": sum(need["train"] for need in needs),
        "test": sum(need["test"] for need in needs),
        "cross_entropy_at_most": sum(need["ce"] for need in needs) * study.config["corpus"]["context"],
        "extracted": sum(sum(on_cpu.shard_tokens(model).values()) for model in study.models.values()),
        "trained_on": sum(run.steps for run in study.runs) * on_cpu.recipe.batch_size,
    }
    about = {"device": cpu.device, "estimated": cpu.estimated, "cores": cpu.cores, "backend": on_cpu.backend}
    space = {what: size / 1e9 for what, size in disk(study, on_cpu)}
    return {
        "models": len(study.models),
        "runs": len(study.runs),
        "settings": len(study.cells),
        "jobs": sum(row["jobs"] for row in rows),
        "tokens": tokens,
        "disk_gb": {**space, "total": sum(space.values())},
        "stages": rows,
        "hours": {key: sum(row["hours"][key] for row in rows) for key in rows[0]["hours"]},
        "peak_mb": max(row["peak_mb"] for row in rows),
        "nodes": nodes,
        "cpu": about,
        "gpu": {
            "device": gpu.device,
            "estimated": gpu.estimated,
            "backend": on_gpu.backend,
            "training_jobs": len(on_gpu.study.trainings),
        },
    }


def _row(slow: Stage, fast: Stage, places: int, nodes: int) -> dict[str, Any]:
    gpus = 1 if fast.gpu else places
    seconds = {
        "core": slow.total,
        "cpu": makespan(slow.seconds, places),
        "gpu": makespan(fast.seconds, gpus),
        "nodes": makespan(slow.seconds, places * nodes),
        "gpu_nodes": makespan(fast.seconds, gpus * nodes),
    }
    return {
        "stage": slow.name,
        "jobs": len(slow.seconds),
        "peak_mb": slow.peak_mb,
        "longest_seconds": max(slow.seconds),
        "hours": {key: value / 3600 for key, value in seconds.items()},
    }


def text(found: dict[str, Any], name: str) -> str:
    """The estimate as aligned text."""
    nodes, cpu, gpu = found["nodes"], found["cpu"], found["gpu"]
    jobs = f"{found['settings']} settings, {found['jobs']} jobs, {found['models']} language models"
    lines = [f"{name}: {found['runs']} runs in {jobs}", ""]
    lines += [f"tokens, {key.replace('_', ' '):<22}{count:>16,}" for key, count in found["tokens"].items()]
    lines += ["", *(f"disk, {key:<24}{size:>13,.3f} GB" for key, size in found["disk_gb"].items()), ""]
    heads = ["1 core", f"{cpu['cores']} cores", "1 GPU", f"{nodes} nodes", f"{nodes} GPU nodes"]
    lines.append(f"{'stage':<16}{'jobs':>7}{'peak MB':>9}" + "".join(f"{head + ', h':>15}" for head in heads))
    for row in [*found["stages"], {"stage": "all", **found}]:
        hours = "".join(f"{_hours(value):>15}" for value in row["hours"].values())
        lines.append(f"{row['stage']:<16}{row['jobs']:>7,}{row['peak_mb']:>9,.0f}{hours}")
    lines += ["", _origin("CPU", cpu), _origin("GPU", gpu)]
    lines.append(f"Training takes {gpu['training_jobs']} jobs on a GPU, each of many runs at once.")
    lines.append(f"A node is one of these, with {cpu['cores']} cores. Downloads and queues are not counted.")
    return "\n".join(lines)


def against(found: dict[str, Any], timings: Path) -> str:
    """Seconds and memory of each stage's jobs as predicted on one core, beside those of a finished run.

    They are means over the jobs in its `timings`, so that a run that was continued can be compared. A ratio
    is predicted to measured.
    """
    import pandas as pd

    try:
        jobs = pd.read_parquet(timings)
        measured = {str(stage): part for stage, part in jobs.groupby("stage")}
        heads = f"{'stage':<12}{'jobs':>6}{'measured, s':>14}{'predicted, s':>14}{'ratio':>8}"
        lines = [f"{heads}{'peak MB':>10}{'ratio':>8}"]
        for row in (row for row in found["stages"] if row["stage"] in measured):
            part = measured[row["stage"]]
            seconds, peak = float(part["seconds"].mean()), float(part["peak_mb"].max())
            predicted = row["hours"]["core"] * 3600 / row["jobs"]
            lines.append(
                f"{row['stage']:<12}{len(part):>6}{seconds:>14.1f}{predicted:>14.1f}"
                f"{predicted / seconds:>8.2f}{peak:>10.0f}{row['peak_mb'] / peak:>8.2f}"
            )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{timings}: expected the timings.parquet of a run ({error})") from None
    return "\n".join(lines)


def _hours(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:,.3f}" if value < 10 else f"{value:,.0f}"


def _origin(kind: str, machine: dict[str, Any]) -> str:
    said = f"{kind} hours: fitted to rows measured on {machine['device']}, backend {machine['backend']}."
    names = [_ESTIMATED.get(name, name) for name in machine["estimated"]]
    return f"{said} Estimated, not measured: {', '.join(names)}." if names else said


def _nodes(value: str) -> int:
    with suppress(ValueError):
        if (count := int(value)) >= 1:
            return count
    raise argparse.ArgumentTypeError(f"found {value!r}, expected a whole number of at least 1")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m expander_sae.cost", description="What a configuration takes, before it is run."
    )
    parser.add_argument("config", nargs="?", default="config.yaml", help="default: config.yaml")
    parser.add_argument("--nodes", type=_nodes, default=4, help="nodes of a cluster, 4 if not given")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--against", type=Path, help="compare with this timings.parquet of a finished run")
    parser.add_argument("--cpu", type=Path, default=CPU_FILE, help="coefficients of another CPU")
    parser.add_argument("--gpu", type=Path, default=GPU_FILE, help="coefficients of another GPU")
    options = parser.parse_args(arguments)
    with reported_to_user():
        study = Study(load_config(options.config))
        found = estimate(study, Machine.read(options.cpu), Machine.read(options.gpu), options.nodes)
        if options.against:
            print(against(found, options.against))
        else:
            print(json.dumps(found, indent=2) if options.json else text(found, options.config))


if __name__ == "__main__":
    main()
