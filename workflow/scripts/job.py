"""What the scripts share: arguments, log file, error messages, threads, and the cost of the job."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from expander_sae import memory_limits
from expander_sae.errors import UserError, reported_to_user
from expander_sae.files import write_json


def device() -> str:
    """The device that the configuration asks for; `auto` is CUDA where the job was given a GPU."""
    asked = os.environ.get("EXPANDER_SAE_DEVICE", "cpu")
    if asked != "auto":
        return asked
    if shutil.which("nvidia-smi") is None or os.environ.get("EXPANDER_SAE_GPUS") == "0":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def backend() -> str:
    """The kernels that the configuration asks for."""
    return os.environ.get("EXPANDER_SAE_BACKEND", "auto")


def batch_tokens() -> int:
    """Tokens of one forward pass."""
    return int(os.environ.get("EXPANDER_SAE_BATCH_TOKENS", "2048"))


def threads() -> int:
    """CPU threads of this job."""
    return int(os.environ.get("EXPANDER_SAE_THREADS", "1"))


def arguments(*names: str, lists: tuple[str, ...] = ()) -> argparse.Namespace:
    """Parse --log, --memory and the options of these names; those of `lists` take any number of values."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--memory", type=float, default=0.0, help="megabytes that the job needs")
    for name in names:
        parser.add_argument(f"--{name}", required=True)
    for name in lists:
        parser.add_argument(f"--{name}", nargs="*", type=Path, default=[])
    return parser.parse_args()


def run(stage: str, main: Callable[[argparse.Namespace], bool | None], options: argparse.Namespace) -> None:
    """Run `main` with its output in the log file; write seconds and peak memory beside the log.

    A `UserError`, or a disk that is full or forbidden, is also shown on the terminal, as one
    message; anything else leaves its traceback in the log and says where that is. `main` returns
    False where it found everything done: the cost of the job that did it is then kept.
    """
    # Numpy and torch read these once, when they are imported.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads())
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_MININTERVAL", "30")
    terminal = _redirect(options.log)
    started = time.perf_counter()
    try:
        with reported_to_user():
            memory_limits.require(options.memory)
            _check_device()
            worked = main(options)
    except SystemExit:
        _repeat_last_line(options.log, terminal)
        raise
    except Exception:
        _report_defect(options.log, terminal)
    if worked is not False:
        write_json(options.log.with_suffix(".json"), cost(stage, _job_name(options.log), started))


def cost(stage: str, job: str, started: float) -> dict[str, Any]:
    """A row of timings.parquet, for a job that began at `started` (time.perf_counter)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "stage": stage,
        "job": job,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_mb": round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1),
        "threads": threads(),
        "device": device(),
    }


def _check_device() -> None:
    if device() == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("compute.device: found 'cuda', expected 'cpu' (torch sees no GPU here)")


def _redirect(log: Path) -> int:
    """Send stdout and stderr to the log; returns a descriptor of the former stderr."""
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    with open(log, "ab") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return terminal


def _job_name(log: Path) -> str:
    return log.with_suffix("").as_posix().removeprefix("results/logs/")


def _repeat_last_line(log: Path, terminal: int) -> None:
    sys.stderr.flush()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    start = max((index for index, line in enumerate(lines) if line.startswith("error: ")), default=None)
    if start is not None:
        os.write(terminal, ("\n".join(lines[start:]) + "\n").encode())


def _report_defect(log: Path, terminal: int) -> NoReturn:
    traceback.print_exc()
    kind, value = sys.exc_info()[:2]
    name = kind.__name__ if kind else "error"
    os.write(terminal, f"error: unexpected {name}: {value} (a defect; traceback in {log})\n".encode())
    raise SystemExit(1)
