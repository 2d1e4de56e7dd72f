"""Speed on a CPU: ``python -m benchmarks.cpu [--quick] [--json FILE] [--tasks …] [--threads N]``.

Every variant of a task runs in one process, in turn, on the same inputs. Where the processor has units for
bfloat16, dense variants run in it too, under names that end in `_bf16`. Prints medians, quartiles,
the ratio to the fastest, and shares of the measured matrix product and copy rates;
writes rows ``task variant m n d k B dtype threads ms_median ms_q25 ms_q75 peak_mb device`` as JSON.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import extraction, tasks
from benchmarks.measure import Ceilings, Timing, Variant, interleaved, measure_ceilings
from benchmarks.tasks import Shape
from expander_sae.machine.allocator import keep_freed_memory
from expander_sae.storage.files import write_json

_FULL = [
    (512, 4096, 7),
    (576, 4608, 7),
    (576, 4608, 30),
    (576, 4608, 100),
    (2048, 16384, 7),
    (2048, 16384, 102),
]
_QUICK = [(576, 4608, 7)]
_PURSUIT = [(512, 4096, 7), (512, 4096, 50)]
Job = tuple[str, Shape, int, Callable[[Shape], list[Variant]]]
TASKS = ("encode_topk", "train_step", "omp", "pool_read", "extraction")


def device_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return model


def as_row(task: str, shape: Shape, timing: Timing, ceilings: Ceilings) -> dict[str, Any]:
    """One row of the JSON list; shares of the ceilings are null where a variant states no cost."""
    seconds = timing.quantile(0.5) / 1e3
    variant = timing.variant
    return {
        "task": task,
        "variant": variant.name,
        "m": shape.m,
        "n": shape.n,
        "d": shape.d,
        "k": shape.k,
        "B": shape.batch,
        "dtype": variant.dtype,
        "threads": torch.get_num_threads(),
        "ms_median": timing.quantile(0.5),
        "ms_q25": timing.quantile(0.25),
        "ms_q75": timing.quantile(0.75),
        "peak_mb": timing.peak_mb,
        "device": device_name(),
        "calls": len(timing.seconds),
        "share_gemm": variant.flops / seconds / ceilings.flops if variant.flops else None,
        "share_copy": variant.traffic / seconds / ceilings.copy if variant.traffic else None,
    }


def jobs(names: list[str], quick: bool, folder: Path) -> list[Job]:
    """(task, shape, rounds, variants of a shape), in order."""
    shapes = [Shape(m, n, d, 64, 256) for m, n, d in (_QUICK if quick else _FULL)]
    rounds = 5 if quick else 15
    planned: list[Job] = []
    if "encode_topk" in names:
        planned += [("encode_topk", shape, rounds, tasks.encode_topk) for shape in shapes]
    if "train_step" in names:
        planned += [("train_step", s, rounds if s.m < 2048 else 5, tasks.train) for s in shapes]
        if not quick:
            planned += [("train_step", replace(shapes[4], n=131072), 5, lambda s: tasks.train(s, False))]
    if "omp" in names:
        for m, n, d in _PURSUIT[:1] if quick else _PURSUIT:
            planned.append(
                ("omp", Shape(m, n, d, 64, 32 if quick else 200), 1 if quick else 3, tasks.pursuit)
            )
    if "pool_read" in names:
        tokens = 20_000 if quick else 200_000
        shape = Shape(576, 0, 0, 0, 256)
        planned.append(("pool_read", shape, rounds, lambda s: tasks.pool_read(s, folder, tokens)))
    if "extraction" in names:
        tokens = 512 if quick else 4096
        model = extraction.model_file(folder, convert=not quick)
        shape = Shape(extraction.width_of(model), 0, 0, 0, tokens)
        variants = partial(extraction.extraction, model, folder)
        planned.append(("extraction", shape, 1 if quick else 3, lambda s: variants(s.batch)))
    return planned


def report(rows: list[dict[str, Any]]) -> None:
    """Print the rows of one task and shape."""

    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    first, fastest = rows[0], min(row["ms_median"] for row in rows)
    print(f"\n{first['task']}  m={first['m']} n={first['n']} d={first['d']} k={first['k']} B={first['B']}")
    heads = ("median ms", "q25", "q75", "× fastest", "gemm", "copy", "peak MB")
    print(f"  {'variant':<18}" + "".join(f"{head:>11}" for head in heads))
    for row in rows:
        cells = [format(row[key], ".2f") for key in ("ms_median", "ms_q25", "ms_q75")]
        cells.append(format(row["ms_median"] / fastest, ".1f"))
        cells += [
            shown(row["share_gemm"], ".0%"),
            shown(row["share_copy"], ".0%"),
            shown(row["peak_mb"], ".0f"),
        ]
        print(f"  {row['variant']:<18}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one shape, few rounds: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--threads", type=int, help="as PyTorch chooses, if not given")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()  # as a training job does

    ceilings = measure_ceilings(options.quick)
    print(f"{device_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"matrix product {ceilings.flops / 1e9:.0f} GFLOP/s, copy {ceilings.copy / 1e9:.1f} GB/s")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for task, shape, rounds, variants in jobs(options.tasks, options.quick, Path(folder)):
            timings = interleaved(variants(shape), rounds)
            rows += [as_row(task, shape, timing, ceilings) for timing in timings]
            report(rows[-len(timings) :])
            if options.json:
                write_json(options.json, rows)


if __name__ == "__main__":
    main()
