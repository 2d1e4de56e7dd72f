"""Fit the cost model of `expander_sae.cost.time_model`: ``python -m benchmarks.fit [--quick] --json FILE``.

Times every task on a list of shapes, all shapes in turn so that a slow moment falls on all of them,
fits non-negative coefficients to some and predicts the others. Writes what `python -m
expander_sae.cost --cpu FILE` reads, with the quality of each fit; --rows FILE fits rows that
`benchmarks.cpu` or another benchmark wrote instead of timing anything.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import fit_jobs, tasks
from benchmarks import fit_shapes as shapes
from benchmarks.cpu import device_name
from benchmarks.measure import Variant, interleaved
from benchmarks.tasks import BACKENDS, Shape
from expander_sae.cost import time_model
from expander_sae.cost.time_model import CPU_FILE, DENSE, TASKS
from expander_sae.errors import UserError, reported_to_user
from expander_sae.machine.allocator import keep_freed_memory
from expander_sae.machine.provenance import versions
from expander_sae.storage.files import read_json, write_json

Row = dict[str, Any]

_NAMES: dict[str, str] = {"dense_topk": DENSE, "dense_gemm": DENSE, "dense_products": DENSE}
"""Benchmark variants that are not called what the backend is."""

_GRAPH = "train_graph"
"""Rows of a training step that is replayed as one CUDA graph: where there are some, they are the step."""

_PASSES = {"dense_products": 5.0}
"""Variants that take so many whole products over a dense dictionary, and gather nothing."""

_FEW = {"encode_topk": ("a", "c"), "train_step": ("c", "f")}
"""What is fitted to two or three shapes of a dense dictionary: its products, and the price of a call or the
passes over all values, whichever weighs more."""


def nonnegative_least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """x ≥ 0 that minimises ‖matrix · x − target‖.

    The solution is the plain one on its own support, so all supports are tried: exact, and quick
    for the few columns here.
    """
    count = matrix.shape[1]
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1
    best, least = np.zeros(count), float(target @ target)
    for size in range(1, count + 1):
        for support in map(list, combinations(range(count), size)):
            found = np.linalg.lstsq(matrix[:, support] / scale[support], target, rcond=None)[0]
            if (found < 0).any():
                continue
            error = float(np.square(matrix[:, support] / scale[support] @ found - target).sum())
            if error < least * (1 - 1e-12):
                best, least = np.zeros(count), error
                best[support] = found / scale[support]
    return best


def r_squared(measured: np.ndarray, predicted: np.ndarray) -> float:
    """1 − Σ(t − t̂)²/Σ(t − t̄)²; NaN where there are not two different times."""
    spread = float(np.square(measured - measured.mean()).sum())
    return 1 - float(np.square(measured - predicted).sum()) / spread if spread > 0 else float("nan")


def fit(rows: Sequence[Row], gather_flops: float | None = None) -> dict[str, Any]:
    """Coefficients of one task and backend from rows with their milliseconds, and how well they predict.

    Errors are weighed by 1/t. Rows with `held_out` are predicted only. gather_share: how fast the
    term c·n·d·B runs, as a part of `gather_flops`.
    """
    matrix = np.array([_terms(row) for row in rows])
    seconds = np.array([row.get("ms_median", row.get("ms_mean")) / 1e3 for row in rows])
    held = np.array([bool(row.get("held_out")) for row in rows])
    used, passes = ~held, _PASSES.get(rows[0]["variant"])
    few = _FEW.get(_task(rows[0])) if _backend(rows[0]) == DENSE else None
    if used.sum() < (4 if few is None else 2):
        raise UserError(
            f"{rows[0]['task']}, {rows[0]['variant']}: {used.sum()} shapes to fit, expected 4 or more"
        )
    if few is not None and used.sum() < 4:
        matrix = matrix * [name in few for name in time_model.COEFFICIENTS]
    weighed = matrix[used] / seconds[used, None]
    found = nonnegative_least_squares(weighed, np.ones(int(used.sum())))
    predicted = matrix @ found
    ratio = predicted / seconds
    result: dict[str, Any] = dict(zip(time_model.COEFFICIENTS, map(float, found), strict=True))
    for name, part in (("fitted", used), ("held_out", held)):
        if part.any():
            result[name] = {
                "shapes": int(part.sum()),
                "r2": r_squared(seconds[part], predicted[part]),
                "r2_log": r_squared(np.log(seconds[part]), np.log(np.maximum(predicted[part], 1e-12))),
                "least_ratio": float(ratio[part].min()),
                "largest_ratio": float(ratio[part].max()),
            }
    if passes is not None:
        result["passes"] = passes
    share = 2 / (result["c"] * gather_flops) if gather_flops and result["c"] > 0 else None
    return {**result, "gather_share": share}


def _backend(row: Row) -> str:
    return _NAMES.get(row["variant"], row["variant"])


def _task(row: Row) -> str:
    return "train_step" if row["task"] == _GRAPH else str(row["task"])


def _shape(row: Row) -> time_model.Shape:
    dense = _backend(row) == DENSE
    return time_model.Shape(row["m"], row["n"], row["m"] if dense else row["d"], row["k"], row["B"])


def _terms(row: Row) -> np.ndarray:
    """The terms of a row. In a round of several steps all but the first, the price of a call, are theirs
    together: `together` steps, of the one width d or of the listed ones in equal parts."""
    widths = row["d"] if isinstance(row["d"], list) else [row["d"]]
    backend, passes = _backend(row), _PASSES.get(row["variant"])
    each = [time_model.terms(_task(row), _shape({**row, "d": d}), backend, passes) for d in widths]
    found = np.mean(each, axis=0) * row.get("together", 1)
    found[0] = each[0][0]
    return found


def fit_all(rows: Iterable[Row], gather_flops: float | None) -> dict[str, dict[str, Any]]:
    """Task → backend → `fit` of its rows; variants that are no backend are left out."""
    groups: dict[tuple[str, str], list[Row]] = {}
    given = list(rows)
    replayed = {_backend(row) for row in given if row["task"] == _GRAPH}
    for row in given:
        backend = _backend(row)
        if row["task"] == _GRAPH:
            groups.setdefault(("train_step", backend), []).append(row)
        elif row["task"] == "train_step" and backend in replayed:
            continue
        elif row["task"] in TASKS and backend in (DENSE, "torch", "numba", "triton", "densified"):
            groups.setdefault((row["task"], backend), []).append(row)
    found: dict[str, dict[str, Any]] = {task: {} for task in TASKS}
    for (task, backend), group in groups.items():
        found[task][backend] = fit(group, gather_flops)
    return found


def holding_out(rows: list[Row]) -> list[Row]:
    """Rows of another benchmark; of fifteen or more of a task and variant every third is held out."""
    seen: dict[tuple[str, str], int] = {}
    count = Counter((row["task"], row["variant"]) for row in rows)
    marked = []
    for row in rows:
        key = row["task"], row["variant"]
        seen[key] = seen.get(key, 0) + 1
        marked.append({**row, "held_out": row.get("held_out", count[key] >= 15 and seen[key] % 3 == 0)})
    return marked


def _variants(task: str, quick: bool) -> list[tuple[Shape, bool, Variant]]:
    """(shape, held out, variant) of every timing of a task."""
    make = {"encode_topk": tasks.encode_topk, "train_step": tasks.train, "omp": tasks.pursuit}[task]
    pursuit = task == "omp"
    lists = [
        (shapes.PURSUIT if pursuit else shapes.SPARSE, False, set(BACKENDS)),
        (shapes.PURSUIT_HELD_OUT if pursuit else shapes.SPARSE_HELD_OUT, True, set(BACKENDS)),
        (shapes.PURSUIT_DENSE if pursuit else shapes.DENSE, False, set(_NAMES)),
        (shapes.PURSUIT_DENSE_HELD_OUT if pursuit else shapes.DENSE_HELD_OUT, True, set(_NAMES)),
    ]
    found = []
    for numbers, held_out, names in lists:
        for shape in (Shape(*each) for each in numbers):
            if quick:
                shape = replace(
                    shape, m=shape.m // 8, n=shape.n // 8, d=min(shape.d, 30), k=max(1, shape.k // 8)
                )
            found += [(shape, held_out, variant) for variant in make(shape) if variant.name in names]
    return found


def measure(task: str, rounds: int, quick: bool) -> list[Row]:
    """Rows of a task: median milliseconds of each shape and variant."""
    planned = _variants(task, quick)
    timings = interleaved([variant for _, _, variant in planned], rounds, memory=False)
    return [
        {
            "task": task,
            "variant": variant.name,
            "m": shape.m,
            "n": shape.n,
            "d": shape.d,
            "k": shape.k,
            "B": shape.batch,
            "held_out": held_out,
            "threads": torch.get_num_threads(),
            "ms_median": timing.quantile(0.5),
            "ms_q25": timing.quantile(0.25),
            "ms_q75": timing.quantile(0.75),
            "device": device_name(),
        }
        for (shape, held_out, variant), timing in zip(planned, timings, strict=True)
    ]


def report(fitted: dict[str, dict[str, Any]]) -> None:
    """Print coefficients and quality as a table."""
    print(
        f"\n{'task':<13}{'backend':<10}{'a, µs':>9}{'b, ps':>9}{'c, ps':>9}{'e, ps':>9}{'R²':>8}"
        f"{'held out':>10}{'ratios held out':>17}{'of gather':>11}"
    )
    for task, backends in fitted.items():
        for backend, found in backends.items():
            held = found.get("held_out")
            share = found["gather_share"]
            cells = f"{found['a'] * 1e6:>9.0f}" + "".join(f"{found[x] * 1e12:>9.1f}" for x in "bce")
            cells += f"{found['fitted']['r2']:>8.3f}"
            cells += (
                f"{held['r2']:>10.3f}{held['least_ratio']:>10.2f} –{held['largest_ratio']:>5.2f}"
                if held
                else ""
            )
            print(
                f"{task:<13}{backend:<10}{cells}" + ("" if share is None else f"{share:>11.0%}"), flush=True
            )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description="Fit the cost model.")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, few rounds: a check that it runs")
    parser.add_argument("--json", type=Path, required=True, help="write the coefficients there")
    parser.add_argument("--rows", type=Path, nargs="+", help="fit the rows of these files; times nothing")
    parser.add_argument("--base", type=Path, default=CPU_FILE, help="what stands beside refitted tasks")
    parser.add_argument("--dtype", default="float32", help="of the rows that are fitted")
    parser.add_argument("--save-rows", type=Path, help="write the measured rows there")
    parser.add_argument("--threads", type=int, default=1, help="1 if not given, as in the jobs")
    parser.add_argument("--rounds", type=int, help="turns of each task")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as a training job does
    with reported_to_user():
        record = (
            _measured(options)
            if options.rows is None
            else _refitted(options.rows, options.base, options.dtype)
        )
        write_json(options.json, record)


def _refitted(paths: Sequence[Path], base: Path, dtype: str) -> dict[str, Any]:
    """The record `base` with the tasks that the rows hold fitted anew."""
    given = [row for path in paths for row in read_json(path) if row.get("dtype", dtype) == dtype]
    rows, record = holding_out(given), read_json(base)
    device = next((row["device"] for row in rows if "device" in row), record["device"])
    ceiling = record.get("gather_flops") if device == record["device"] else None
    fitted = fit_all(rows, ceiling)
    report(fitted)
    tasks_known = {task: {**record["tasks"].get(task, {}), **fitted[task]} for task in TASKS}
    estimated = [name for name in record.get("estimated", ()) if not fitted.get(name)]
    return {**record, "device": device, "tasks": tasks_known, "estimated": estimated}


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    load = fit_jobs.load_average()
    gather = fit_jobs.gather_flops()
    print(f"{device_name()}, {torch.get_num_threads()} threads, load {load}")
    print(
        "gather ceiling: " + ("needs numba" if gather is None else f"{gather / 1e9:.0f} GFLOP/s"), flush=True
    )
    rows: list[Row] = []
    for task in TASKS:
        rows += measure(task, options.rounds or (2 if options.quick else 7), options.quick)
        print(f"timed {task}", flush=True)
    if options.save_rows:
        write_json(options.save_rows, rows)
    fitted = fit_all(rows, gather)
    report(fitted)
    constants = fit_jobs.constants(options.quick)
    known = versions()
    return {
        "device": device_name(),
        "cores": fit_jobs.cores(),
        "threads": options.threads,
        "estimated": [],
        "load_average": {"before": load, "after": fit_jobs.load_average()},
        "gather_flops": gather,
        "versions": {name: known[name] for name in ("torch", "numba", "numpy")},
        "tasks": fitted,
        "jobs": constants,
    }


if __name__ == "__main__":
    main()
