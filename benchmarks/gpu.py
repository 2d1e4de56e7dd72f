"""Speed on an NVIDIA GPU: ``python -m benchmarks.gpu [--quick] [--json FILE] [--tasks …] [--minutes M]``.

Every variant of a task runs in one process, in turn, on batches that together exceed the L2 cache twice
over; device events time stretches of calls. Before timing, results for other data are compared with float64.
Prints medians, quartiles, the ratio to the fastest, shares of the measured matrix product and copy rates;
writes rows ``task variant m n d k B dtype threads ms_median ms_q25 ms_q75 peak_mb device`` as JSON, with
versions, the error, and how many autoencoders a call trains. Jobs that the file already holds for this
device are not run again, so a matrix can be measured in several sittings. Needs torch, triton, numpy,
safetensors and tqdm. Exits 2 without CUDA.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_pursuit import pursuit
from benchmarks.gpu_rounds import rounds
from benchmarks.gpu_tasks import (
    TOLERANCE,
    GpuVariant,
    batches,
    encode_topk,
    precision,
    train,
    train_graph,
)
from benchmarks.measure import Call, Ceilings
from benchmarks.tasks import Shape
from expander_sae.kernels.precision import PRECISIONS
from expander_sae.storage.files import write_json

_SHAPES = {"512x4096": (512, 4096), "576x4608": (576, 4608), "2048x16384": (2048, 16384)}
_LONG = 2.0  # seconds of timed calls of a variant, after which fewer will do
_STRETCH = 5e-3  # seconds of calls between two events
TASKS: dict[str, Callable[[Shape, list[int], str, str, list[str]], list[GpuVariant]]] = {
    "encode_topk": encode_topk,
    "train_step": train,
    "train_graph": train_graph,
    "omp": pursuit,
    "rounds": rounds,
}
Job = tuple[str, Shape, str]


@dataclass(frozen=True)
class Setting:
    """Where variants are timed, which ones, and with how many calls at least."""

    device: str = "cuda"
    widths: tuple[int, ...] = (7, 30, 102)
    backends: tuple[str, ...] = ("torch", "triton", "densified")
    calls: int = 50

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name() if self.device == "cuda" else self.device

    @property
    def beyond(self) -> int:
        """Bytes of batches that find no room in the L2 cache."""
        return 2 * torch.cuda.get_device_properties(0).L2_cache_size if self.device == "cuda" else 0


_SETTING = Setting()


def jobs(tasks: list[str], shapes: list[str], dtypes: list[str], quick: bool) -> list[Job]:
    """(task, shape, dtype), what matters most first: k = 64, B = 4096, then other k, then other B."""
    points = [(64, 4096)] if quick else [(64, 4096), (16, 4096), (128, 4096)]
    points += [] if quick else [(64, 256), (64, 1024), (64, 16384)]
    return [
        (task, Shape(*_SHAPES[name], 0, k, batch), dtype)
        for k, batch in points
        for dtype in dtypes
        for name in shapes
        for task in tasks
        if task not in ("omp", "rounds") or (dtype == "float32" and (k, batch) == (64, 4096))
    ]


def measure_ceilings(quick: bool) -> dict[str, Ceilings]:
    """The fastest of ten runs: products in each precision, and a copy of 4 GiB (quick: 1 GiB)."""
    size = 4096 if quick else 8192
    source = torch.empty((1 if quick else 4) << 28, device="cuda").normal_()
    target = torch.empty_like(source)
    copy = min(_timed(lambda: target.copy_(source)) for _ in range(10))
    found = {}
    for dtype in PRECISIONS:
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        a, b = (torch.randn(size, size, device="cuda").to(kind) for _ in range(2))
        with precision(dtype):
            product = min(_timed(partial(torch.mm, a, b)) for _ in range(10))
        found[dtype] = Ceilings(2 * size**3 / product, 2 * source.numel() * 4 / copy)
    return found


def _timed(call: Call) -> float:
    """Seconds between two device events around the call; without a GPU, of the clock."""
    if not torch.cuda.is_available():
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def interleaved(calls: list[Call], least: int) -> list[list[float]]:
    """Seconds of each call, `least` times: rounds over all, ten timed stretches a turn after an untimed one.

    A stretch is as many calls as take about `_STRETCH`, 1 to 20, one after the other as loops make them: the
    host launches the next call while the device works on this one.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    lengths = [1] * len(calls)
    open_calls = list(range(len(calls)))
    while open_calls:
        for number in open_calls:
            held = seconds[number]
            if not held:
                calls[number]()
                lengths[number] = min(20, max(1, int(_STRETCH / max(1e-9, _timed(calls[number])))))
            stretch = partial(_repeat, calls[number], lengths[number])
            stretch()
            turns = 10 if not held or held[-1] < 0.1 else 3
            held += [_timed(stretch) / lengths[number] for _ in range(turns)]
        made = [
            (len(held) * length, sum(held) * length) for held, length in zip(seconds, lengths, strict=True)
        ]
        open_calls = [i for i in open_calls if made[i][0] < least and made[i][1] < _LONG]
    return seconds


def _repeat(call: Call, times: int) -> None:
    for _ in range(times):
        call()


def _built(variant: GpuVariant, shape: Shape, setting: Setting) -> tuple[Call, float]:
    """(the call, MB that building it and calling it twice takes beside its inputs; 0 without a GPU)."""
    following = batches(shape, setting.device, setting.beyond)
    gc.collect()
    if not torch.cuda.is_available():
        call = variant.make(following)
        call()
        return call, 0.0
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call = variant.make(following)
    call()
    call()
    torch.cuda.synchronize()
    return call, (torch.cuda.max_memory_allocated() - before) / 2**20


def run_job(job: Job, ceilings: dict[str, Ceilings], setting: Setting = _SETTING) -> list[dict[str, Any]]:
    """The rows of one job. A variant that fails is reported on stderr and left out."""
    task, shape, dtype = job
    built: list[tuple[GpuVariant, Call, float, float | None]] = []
    with precision(dtype):
        for variant in TASKS[task](
            shape, list(setting.widths), dtype, setting.device, list(setting.backends)
        ):
            try:
                error = variant.error() if variant.error else None
                built.append((variant, *_built(variant, shape, setting), error))
            except Exception as failure:  # one broken variant must not cost a whole sitting
                print(f"{variant.name} d={variant.d}: {type(failure).__name__}: {failure}", file=sys.stderr)
        timings = interleaved([call for _, call, _, _ in built], setting.calls)
    rows = []
    for (variant, _, peak, error), seconds in zip(built, timings, strict=True):
        median, low, high = (float(np.quantile(seconds, q)) for q in (0.5, 0.25, 0.75))
        best = ceilings[dtype]
        rows.append(
            {
                "task": task,
                "variant": variant.name,
                "m": shape.m,
                "n": shape.n,
                "d": variant.d,
                "k": shape.k,
                "B": shape.batch,
                "dtype": dtype,
                "threads": torch.get_num_threads(),
                "ms_median": median * 1e3,
                "ms_q25": low * 1e3,
                "ms_q75": high * 1e3,
                "peak_mb": peak,
                "device": setting.name,
                "calls": len(seconds),
                "share_gemm": variant.flops / median / best.flops if variant.flops else None,
                "share_copy": variant.traffic / median / best.copy if variant.traffic else None,
                "error": error,
                "together": variant.together,
                "torch": torch.__version__,
            }
        )
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    """Print the rows of one job."""
    if not rows:
        return
    first, fastest = rows[0], min(row["ms_median"] for row in rows)
    print(f"\n{first['task']}  m={first['m']} n={first['n']} k={first['k']} B={first['B']} {first['dtype']}")
    heads = ("d", "median ms", "q25", "q75", "× fastest", "gemm", "copy", "peak MB", "error")
    print(f"  {'variant':<16}" + "".join(f"{head:>10}" for head in heads))
    for row in rows:
        cells = [str(row["d"]), *(format(row[key], ".3f") for key in ("ms_median", "ms_q25", "ms_q75"))]
        cells.append(format(row["ms_median"] / fastest, ".1f"))
        for key, form in (("share_gemm", ".0%"), ("share_copy", ".0%"), ("peak_mb", ".0f"), ("error", ".0e")):
            cells.append("–" if row[key] is None else format(row[key], form))
        wrong = row["error"] is not None and not row["error"] <= TOLERANCE[row["dtype"]]
        name = row["variant"] + (f" ×{row['together']}" if row["together"] > 1 else "")
        print(f"  {name:<16}" + "".join(f"{cell:>10}" for cell in cells) + "  WRONG" * wrong)
    sys.stdout.flush()


def _key(row: dict[str, Any]) -> tuple[object, ...]:
    return tuple(row[name] for name in ("task", "m", "n", "k", "B", "dtype", "device"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one shape, k and B: a few minutes")
    parser.add_argument("--json", type=Path, help="add the rows to this file, and skip what it holds")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--shapes", nargs="+", choices=list(_SHAPES), default=list(_SHAPES)[::-1])
    parser.add_argument("--dtypes", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS)[::-1])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no job after this long")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.gpu: PyTorch finds no CUDA device here", file=sys.stderr)
        return 2

    started = time.monotonic()
    ceilings = measure_ceilings(options.quick)
    copy = ceilings["float32"].copy / 1e9
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, copy {copy:.0f} GB/s")
    print("matrix product " + ", ".join(f"{d} {c.flops / 1e12:.0f} TFLOP/s" for d, c in ceilings.items()))
    rows: list[dict[str, Any]] = []
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())
    done = {_key(row) for row in rows}
    shapes = options.shapes[:1] if options.quick else options.shapes
    planned = jobs(options.tasks, shapes, options.dtypes, options.quick)
    for number, (task, shape, dtype) in enumerate(planned):
        name = torch.cuda.get_device_name()
        if (task, shape.m, shape.n, shape.k, shape.batch, dtype, name) in done:
            continue
        if time.monotonic() - started > 60 * options.minutes:
            print(f"\n{len(planned) - number} jobs left; run the same command again to go on")
            break
        found = run_job((task, shape, dtype), ceilings, _SETTING)
        report(found)
        rows += found
        if options.json:
            write_json(options.json, rows)
        gc.collect()
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
