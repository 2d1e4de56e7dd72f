"""All that a GPU has to show, in one sitting: ``python -m benchmarks.gpu_session [--out FOLDER] [--quick]``.

Runs the tests that need a GPU, times the tasks of `benchmarks.gpu` at the shapes of the targets below, trains
as users do, and trains many autoencoders of several widths in one graph. Writes rows with the device's name
to FOLDER/gpu_session.json, each as soon as it is known, and targets.json; prints each target beside what was
found. Takes at most eight minutes: what would begin after `--minutes` is left out, and named. Needs torch,
triton, numpy, numba, safetensors, tqdm, pytest and hypothesis. With `--quick` everything is tiny, runs on a
CPU too, and its numbers mean nothing. Exits 1 where a test fails, 2 without CUDA.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import gpu
from benchmarks.gpu_tasks import DENSE_STEP, precision
from benchmarks.measure import Ceilings
from benchmarks.tasks import Shape
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import write_json
from expander_sae.study.recipes import RECIPES
from expander_sae.training.normalisation import KeptTokens, Normalisation
from expander_sae.training.session import Cadence, Session

ROWS = "gpu_session.json"
TESTS = ["tests/kernels", "tests/pursuit", "tests/model/test_autoencoder.py", "tests/model/test_frozen.py"]
TESTS += [f"tests/training/test_{name}.py" for name in ("on_gpu", "rounds", "session", "step")]
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """Sizes of a sitting: the wide shape, the one of the batched QR, small and large batch, widths, steps."""

    device: str
    wide: Shape
    narrow: Shape
    small: int
    large: int
    widths: tuple[int, ...]
    steps: int
    together: int
    tokens: int
    backends: tuple[str, ...]
    calls: int

    @property
    def setting(self) -> gpu.Setting:
        return gpu.Setting(self.device, self.widths, self.backends, self.calls)


FULL = Scale(
    device="cuda",
    wide=Shape(2048, 16384, 7, 64, 256),
    narrow=Shape(512, 4096, 7, 64, 256),
    small=256,
    large=4096,
    widths=(7, 30, 102),
    steps=2000,
    together=16,
    tokens=65_536,
    backends=("triton", "densified"),
    calls=50,
)
QUICK = Scale(
    device="cuda" if torch.cuda.is_available() else "cpu",
    wide=Shape(48, 192, 3, 4, 16),
    narrow=Shape(24, 96, 3, 4, 16),
    small=8,
    large=16,
    widths=(3, 24),
    steps=8,
    together=3,
    tokens=512,
    backends=("torch", "densified"),
    calls=2,
)


@dataclass(frozen=True)
class Target:
    """A claim about the rows: what `measured` finds in them has to be at least, or at most, `limit`."""

    name: str
    limit: float
    at_most: bool
    measured: Callable[[Sequence[Row], Scale], float]

    def record(self, rows: Sequence[Row], scale: Scale) -> Row:
        """What was found beside the limit; not measured is None."""
        try:
            found = self.measured(rows, scale)
        except (StopIteration, ValueError):
            return {"target": self.name, "limit": self.limit, "found": None, "met": None}
        met = found <= self.limit if self.at_most else found >= self.limit
        return {"target": self.name, "limit": self.limit, "found": found, "met": bool(met)}


def _ms(rows: Sequence[Row], task: str, variant: str, batch: int, **asked: Any) -> float:
    """The median of the first row of this task, variant and batch for which the rest is as asked."""
    wanted = {"task": task, "variant": variant, "B": batch, **asked}
    return float(next(row["ms_median"] for row in rows if wanted.items() <= row.items()))


def _sparse(scale: Scale) -> str:
    return scale.backends[0]


def _trained(rows: Sequence[Row], scale: Scale, batch: int, together: int) -> float:
    """Steps a second of a session, all its autoencoders counted."""
    return 1e3 * together / _ms(rows, "session", _sparse(scale), batch, together=together)


def _against_dense(rows: Sequence[Row], scale: Scale, batch: int) -> float:
    shape = {"m": scale.wide.m, "dtype": "bfloat16", "together": 1}
    ours = _ms(rows, "train_graph", _sparse(scale), batch, d=scale.widths[0], **shape)
    return _ms(rows, "train_graph", DENSE_STEP, batch, **shape) / ours


def _pursued(rows: Sequence[Row], scale: Scale, variant: str, shape: Shape) -> float:
    """Tokens a second."""
    return 1e3 * scale.large / _ms(rows, "omp", variant, scale.large, m=shape.m, d=scale.widths[0])


def _encoded(rows: Sequence[Row], scale: Scale, dtype: str, variants: Sequence[str], dense: bool) -> float:
    d = scale.wide.m if dense else scale.widths[0]
    asked = {"m": scale.wide.m, "d": d, "dtype": dtype}
    return min([_ms(rows, "encode_topk", variant, scale.large, **asked) for variant in variants])


def _encoding_ratio(rows: Sequence[Row], scale: Scale) -> float:
    peers = ("dense_emulation", "dense_gemm_topk", "dense_topk")
    best = _encoded(rows, scale, "bfloat16", peers, dense=True)
    return _encoded(rows, scale, "bfloat16", scale.backends, dense=False) / best


TARGETS = (
    Target("session, one, small batch, steps/s", 4500, False, lambda r, s: _trained(r, s, s.small, 1)),
    Target(
        "session, many, small batch, steps/s", 14_000, False, lambda r, s: _trained(r, s, s.small, s.together)
    ),
    Target(
        "session, one, large batch, tokens/s", 5e6, False, lambda r, s: s.large * _trained(r, s, s.large, 1)
    ),
    Target("graph, dense / expander, small batch", 9, False, lambda r, s: _against_dense(r, s, s.small)),
    Target("graph, dense / expander, large batch", 5, False, lambda r, s: _against_dense(r, s, s.large)),
    Target("OMP, wide, tokens/s", 2e5, False, lambda r, s: _pursued(r, s, _sparse(s), s.wide)),
    Target("OMP, narrow, tokens/s", 6e5, False, lambda r, s: _pursued(r, s, _sparse(s), s.narrow)),
    Target(
        "OMP, narrow, of batched QR",
        20,
        False,
        lambda r, s: _pursued(r, s, _sparse(s), s.narrow) / _pursued(r, s, "batched_qr_gemm", s.narrow),
    ),
    Target("encode, bfloat16, of the best dense", 0.5, True, _encoding_ratio),
    Target(
        "encode, float32, ms", 0.45, True, lambda r, s: _encoded(r, s, "float32", s.backends, dense=False)
    ),
    Target(
        "dense step, large batch, ms",
        4.5,
        True,
        lambda r, s: _ms(r, "train_graph", DENSE_STEP, s.large, m=s.wide.m, dtype="bfloat16"),
    ),
)


@dataclass
class Sitting:
    """What has been measured, where it is written, and until when something new may begin."""

    scale: Scale
    out: Path
    minutes: float
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    after: int = 0
    """Measurements that an earlier process of this sitting has seen to."""
    seen: int = 0

    def add(self, name: str, measure: Callable[[], list[Row]]) -> None:
        """Measure, write, say; where it fails, or begins too late, it is named and the others go on.

        Raises:
            Broken: the device takes no more work of this process.
        """
        self.seen += 1
        if self.seen <= self.after:
            return
        spent = (time.monotonic() - self.started) / 60
        if spent > self.minutes:
            self.left_out.append(name)
            return
        print(f"\n{name} ({spent:.1f} min)", flush=True)
        try:
            self.rows += measure()
        except Exception:  # one broken measurement must not cost the sitting
            traceback.print_exc()
            self.left_out.append(name)
        write_json(self.out / ROWS, self.rows)
        if self.scale.device == "cuda":
            self._free()

    def _free(self) -> None:
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as failure:
            raise Broken from failure


class Broken(Exception):
    """After a fault on the device only another process can use it."""


def timed_job(task: str, shape: Shape, dtype: str, scale: Scale) -> list[Row]:
    """Rows of `benchmarks.gpu`; of pursuits, whose targets name the least width, that one alone."""
    setting = replace(scale.setting, widths=scale.widths[:1]) if task == "omp" else scale.setting
    rows = gpu.run_job((task, shape, dtype), {dtype: Ceilings(math.inf, math.inf)}, setting)
    gpu.report(rows)
    return rows


def tokens_of(scale: Scale) -> KeptTokens:
    """Random tokens in the host's memory."""
    pool = torch.randn(scale.tokens, scale.wide.m, generator=torch.Generator().manual_seed(0))
    as_it_is = Normalisation(math.inf, 1.0, np.zeros(scale.wide.m, np.float32), np.arange(scale.tokens))
    return KeptTokens(pool, as_it_is, scale.device)


def session_rows(scale: Scale, batch: int, count: int, widths: Sequence[int] | None = None) -> list[Row]:
    """A training session as users have it: milliseconds of a round between the first log and the last."""
    steps = scale.steps if batch == scale.small else max(8, scale.steps // 4)
    seen: list[float] = []

    def told(row: dict[str, float]) -> None:
        seen.append(time.perf_counter())

    recipe = replace(RECIPES["standard"], batch_size=batch)
    session = Session(tokens_of(scale), recipe, steps, Cadence(log_every=steps // 4), side_by_side=count)
    shape, each = scale.wide, list(widths or scale.widths[:1])
    trainings = []
    for number in range(count):
        mask = MaskRecipe("expander", shape.m, shape.n, each[number % len(each)], number % 4).generate()
        autoencoder = SparseAutoencoder(shape.m, shape.n, shape.k, mask, backend=_sparse(scale))
        trainings.append(session.start(autoencoder, 0, report=told if number == 0 else None))
    with precision("bfloat16"):
        session.train(trainings)
    finite = all(training.state.finite for training in trainings)
    row = {
        "task": "session",
        "variant": _sparse(scale),
        "m": shape.m,
        "n": shape.n,
        "d": each if len(each) > 1 else each[0],
        "k": shape.k,
        "B": batch,
        "dtype": "bfloat16",
        "threads": torch.get_num_threads(),
        "together": count,
        "steps": steps,
        "ms_median": 1e3 * (seen[-1] - seen[0]) / (steps - steps // 4),
        "finite": finite,
        "device": scale.setting.name,
        "torch": torch.__version__,
    }
    print(f"  {count} × {each}, B = {batch}: {row['ms_median']:.3f} ms a round, finite: {finite}", flush=True)
    return [row]


def run_tests(scale: Scale, quick: bool) -> int:
    """pytest's exit code."""
    chosen = ["tests/training/test_on_gpu.py", "tests/training/test_step.py"] if quick else TESTS
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    if find_spec("xdist"):
        command += ["-n", "0" if quick else str(min(8, os.cpu_count() or 1))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if scale.device == "cuda":
        environment.pop("TRITON_INTERPRET", None)
    found = subprocess.run([*command, *chosen], env=environment, check=False, timeout=240)
    return 0 if found.returncode == 5 else found.returncode  # 5: all were skipped


def measure(sitting: Sitting) -> None:
    """Everything, what matters most first."""
    scale = sitting.scale
    for batch, count in ((scale.small, 1), (scale.small, scale.together), (scale.large, 1)):
        name = f"session of {count}, B = {batch}"
        sitting.add(name, partial(session_rows, scale, batch, count))
    for task, shape, batch, dtype in (
        ("train_graph", scale.wide, scale.small, "bfloat16"),
        ("train_graph", scale.wide, scale.large, "bfloat16"),
        ("encode_topk", scale.wide, scale.large, "bfloat16"),
        ("encode_topk", scale.wide, scale.large, "float32"),
        ("omp", scale.wide, scale.large, "float32"),
        ("omp", scale.narrow, scale.large, "float32"),
    ):
        job = task, replace(shape, batch=batch), dtype, scale
        sitting.add(f"{task}, B = {batch}, {dtype}", partial(timed_job, *job))
    sitting.add(
        "session of many widths", lambda: session_rows(scale, scale.small, scale.together, scale.widths)
    )


def _in_new_process(arguments: list[str]) -> int:
    """The exit code of this program with these arguments."""
    command = [sys.executable, "-m", "benchmarks.gpu_session", *arguments]
    return subprocess.run(command, check=False).returncode


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_session", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "benchmarks/results")))
    parser.add_argument("--quick", action="store_true", help="tiny, on a CPU too: a check that it runs")
    parser.add_argument("--minutes", type=float, default=7.0, help="begin nothing after this long")
    parser.add_argument("--no-tests", action="store_true", help="time only")
    parser.add_argument("--after", type=int, default=0, help="go on after so many measurements of a sitting")
    options = parser.parse_args(arguments)
    if not options.quick and not torch.cuda.is_available():
        print("benchmarks.gpu_session: PyTorch finds no CUDA device here", file=sys.stderr)
        return 2
    scale = QUICK if options.quick else FULL
    options.out.mkdir(parents=True, exist_ok=True)
    sitting = Sitting(scale, options.out, options.minutes, after=options.after)
    if options.after and (options.out / ROWS).exists():
        sitting.rows = json.loads((options.out / ROWS).read_text())
    failed = 0 if options.no_tests else run_tests(scale, options.quick)
    try:
        measure(sitting)
    except Broken:
        left = options.minutes - (time.monotonic() - sitting.started) / 60
        again = ["--no-tests", "--after", str(sitting.seen), "--minutes", str(left)]
        return _in_new_process([*(arguments or sys.argv[1:]), *again]) or failed
    found = [target.record(sitting.rows, scale) for target in TARGETS]
    write_json(options.out / "targets.json", {"device": scale.setting.name, "targets": found})
    print(f"\n{scale.setting.name}, torch {torch.__version__}")
    for row in found:
        value = "not measured" if row["found"] is None else f"{row['found']:.4g}"
        print(f"{row['target']:<40}{row['limit']:>12g}{value:>14}  {row['met']}")
    if sitting.left_out:
        print("left out: " + "; ".join(sitting.left_out))
    print(f"tests: {'passed' if failed == 0 else f'failed with {failed}'}")
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
