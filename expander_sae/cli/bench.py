"""`expander-sae bench`: how fast the kernels are on this machine."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from expander_sae.cli.arguments import add_compute, positive
from expander_sae.cli.terminal import Terminal, table

if TYPE_CHECKING:
    from expander_sae.model.autoencoder import SparseAutoencoder

SUMMARY = "time encoding, a training step and OMP on this machine, beside a dense dictionary"
EXAMPLES = (
    "expander-sae bench",
    "expander-sae bench --m 2048 --n 16384 --d 7 --k 64 --no-dense",
    "expander-sae bench --device cuda --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, default, meaning in (
        ("m", 576, "width"),
        ("n", 4608, "features"),
        ("d", 30, "nonzeros a column"),
        ("k", 32, "active features a token"),
        ("batch", 256, "tokens a batch"),
        ("omp-batch", 64, "tokens of a pursuit"),
        ("repeats", 5, "timed calls of each; the median is shown"),
    ):
        parser.add_argument(
            f"--{name}", type=positive, default=default, metavar="N", help=f"{meaning} (default: {default})"
        )
    parser.add_argument("--support", default="expander", help="mask family (default: %(default)s)")
    parser.add_argument("--no-dense", dest="dense", action="store_false", help="sparse only")
    add_compute(parser)


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    import torch

    from expander_sae.machine.device import resolve_device
    from expander_sae.masks.recipe import MaskRecipe
    from expander_sae.model.autoencoder import SparseAutoencoder
    from expander_sae.rng import torch_generator

    device = resolve_device(options.device, "--device")
    mask = MaskRecipe(options.support, options.m, options.n, options.d, 0).generate()
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    masks = {options.support: mask} | ({"dense": None} if options.dense else {})
    for support, used in masks.items():
        model = SparseAutoencoder(options.m, options.n, options.k, used, "tied", options.backend)
        model.initialise(torch_generator(0, "initialisation"))
        calls |= {(task, support): call for task, call in _tasks(model.to(device), options).items()}
    tokens = {"encode": options.batch, "training step": options.batch, "omp": options.omp_batch}
    rows = [
        dict(task=task, support=support, milliseconds=spent * 1e3, tokens_per_second=tokens[task] / spent)
        for (task, support), spent in _interleaved(calls, options.repeats, device, terminal).items()
    ]
    shape = {name: getattr(options, name) for name in ("m", "n", "d", "k", "batch", "omp_batch")}
    record = {
        "shape": shape,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "rows": rows,
    }
    lines = ["m = {m:,}, n = {n:,}, d = {d}, k = {k}, batch {batch}, OMP on {omp_batch}".format(**shape)]
    lines.append("{device}, {threads} threads, torch {torch}".format(**record))
    lines += table(["task", "support", "ms", "tokens/s"], [list(row.values()) for row in rows])
    terminal.result(record, lines)


def _tasks(model: SparseAutoencoder, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    import torch

    from expander_sae.pursuit.inference import INFERENCES
    from expander_sae.study.recipes import RECIPES
    from expander_sae.training.step import TrainingState, train_step

    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(options.batch, options.m, generator=generator).to(model.b_dec.device)
    target = torch.randn(options.omp_batch, options.m, generator=generator).to(model.b_dec.device)
    recipe = RECIPES["standard"]
    state = TrainingState.start(model, recipe, seed=0)
    return {
        "encode": lambda: model.encode(batch),
        "training step": lambda: train_step(state, batch, recipe),
        "omp": lambda: INFERENCES["omp"](model, target),
    }


def _interleaved(
    calls: dict[tuple[str, str], Callable[[], object]], repeats: int, device: Any, terminal: Terminal
) -> dict[tuple[str, str], float]:
    """Median seconds of each call, all taking turns so that a slow moment hits them alike."""
    import torch

    def spend(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for call in calls.values():
        spend(call)  # compiles, and fills caches
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in calls}
    for turn in range(repeats):
        for name, call in calls.items():
            seconds[name].append(spend(call))
        if not terminal.as_json:
            terminal.remark(f"turn {turn + 1} of {repeats}")
    return {name: statistics.median(spent) for name, spent in seconds.items()}
