"""Time and peak memory of n = 2^20 features (m = 2048, d = 7, k = 64), each task in a process of its own.

    python -m benchmarks.scale --json benchmarks/results/scale.json

`step`: three training steps of 256 samples, the last one timed. `lazy_step`: the same in a recipe whose clip
and Adam visit touched columns only. `omp`: orthogonal matching pursuit of 64 tokens. `load`: reading
weights; how often a mask was made on the way is counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

M, N, D, K, BATCH = 2048, 1 << 20, 7, 64, 256

Row = dict[str, Any]


def peak_mb() -> float:
    """Most resident memory of this process until now, in 10⁶ bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _of(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("task", "backend", "tokens"))


def save(rows: list[Row], path: Path) -> None:
    """Write rows beside those of other tasks, backends and sizes that the file has."""
    kept: list[Row] = json.loads(path.read_text()) if path.exists() else []
    again = [_of(row) for row in rows]
    kept = [row for row in kept if _of(row) not in again]
    path.write_text(json.dumps(kept + rows, indent=1) + "\n")


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = call()
    return time.perf_counter() - start, made


def _made(backend: str) -> Any:
    from expander_sae.masks.recipe import MaskRecipe
    from expander_sae.model.autoencoder import SparseAutoencoder
    from expander_sae.rng import torch_generator

    autoencoder = SparseAutoencoder(M, N, K, MaskRecipe("expander", M, N, D, 0), backend=backend)
    autoencoder.initialise(torch_generator(0, "initialisation"))
    return autoencoder


def _tokens(count: int) -> Any:
    import torch

    from expander_sae.rng import torch_generator

    return torch.randn(count, M, generator=torch_generator(0, "tokens"))


def step(backend: str, **changes: Any) -> Row:
    from expander_sae.study.recipes import resolve
    from expander_sae.training.step import TrainingState, train_step

    _, recipe = resolve("tuned", changes)
    state, tokens = TrainingState.start(_made(backend), recipe, 0), _tokens(BATCH)
    seconds = [_timed(lambda: train_step(state, tokens, recipe))[0] for _ in range(3)]
    return {"seconds": seconds[-1]}


def lazy_step(backend: str) -> Row:
    return step(backend, lazy=True)


def omp(backend: str) -> Row:
    import torch

    from expander_sae.pursuit.omp import omp as pursue

    dictionary, tokens = _made(backend).dictionary(), _tokens(64)
    if backend == "numba":
        pursue(dictionary, tokens[:1], 2)  # compiles
    seconds, code = _timed(lambda: pursue(dictionary, tokens, K))
    left = tokens - dictionary.synthesize(code)
    return {"seconds": seconds, "relative_error": float((left.norm(dim=1) / tokens.norm(dim=1)).mean())} | (
        {} if torch.isfinite(code.value).all() else {"finite": False}
    )


def load(backend: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        _made(backend).save(path)
        found = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.scale",
                "--task",
                "read",
                "--backend",
                backend,
                "--path",
                path,
            ],
            check=True,
            capture_output=True,
        )
    return dict(json.loads(found.stdout))


def read(backend: str, path: str) -> Row:
    from expander_sae.masks.recipe import MaskRecipe
    from expander_sae.model.autoencoder import SparseAutoencoder

    made, generate = [], MaskRecipe.generate

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return generate(*arguments)

    MaskRecipe.generate = counted  # type: ignore[method-assign]
    seconds, _ = _timed(lambda: SparseAutoencoder.load(path, backend=backend))
    return {"seconds": seconds, "masks_made": len(made), "peak_mb": peak_mb()}


TASKS = {"step": step, "lazy_step": lazy_step, "omp": omp, "load": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS, "read"], help="run this one here and print its row")
    parser.add_argument("--tasks", choices=TASKS, nargs="+", default=[*TASKS], help="(default: all)")
    parser.add_argument("--backend", default="numba", choices=["numba", "torch"])
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the rows of all tasks, beside others")
    options = parser.parse_args()
    if options.task == "read":
        print(json.dumps(read(options.backend, options.path)))
    elif options.task:
        row = {"task": options.task, "backend": options.backend, "peak_mb": None}
        found = TASKS[options.task](options.backend)
        print(json.dumps(row | {"peak_mb": peak_mb()} | found))
    else:
        rows = []
        for backend in ("numba", "torch"):
            for task in options.tasks:
                command = [sys.executable, "-m", "benchmarks.scale", "--task", task, "--backend", backend]
                found = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append(json.loads(found.stdout))
                print(rows[-1], flush=True)
        if options.json:
            save(rows, options.json)


if __name__ == "__main__":
    main()
