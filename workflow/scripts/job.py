"""What the scripts share: options, log file, error messages, threads, and the cost of the job."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, get_origin

from expander_sae.errors import explained
from expander_sae.machine import available_memory, piece_sizes
from expander_sae.machine.allocator import keep_freed_memory
from expander_sae.machine.device import resolve_device, set_threads
from expander_sae.storage.files import write_json

PREFIX = os.environ.get("EXPANDER_SAE_PREFIX", "")
"""What stands before results/, where another workflow imports this one under a prefix."""


def place(path: str) -> Path:
    """Where a path lies that a job is told; the files of its options are as they are."""
    return Path(PREFIX, path)


LOGS = place("results/logs")


def device() -> str:
    """The device that the configuration asks for; `auto` is CUDA where the job was given a GPU."""
    asked = os.environ.get("EXPANDER_SAE_DEVICE", "cpu")
    no_gpu = shutil.which("nvidia-smi") is None or os.environ.get("EXPANDER_SAE_GPUS") == "0"
    if asked == "cpu" or (asked == "auto" and no_gpu):
        return "cpu"  # what many jobs need no torch for
    return str(resolve_device(asked, "compute.device"))


def backend() -> str:
    """The kernels that the configuration asks for."""
    return os.environ.get("EXPANDER_SAE_BACKEND", "auto")


def products() -> str:
    """How a GPU takes the matrix products of training."""
    return os.environ.get("EXPANDER_SAE_PRODUCTS", "bfloat16")


def batch_tokens() -> int:
    """Tokens of one forward pass."""
    asked = os.environ.get("EXPANDER_SAE_BATCH_TOKENS", "auto")
    return piece_sizes.batch_tokens(int(asked) if asked.isdigit() else asked, device() != "cpu")


def threads() -> int:
    return int(os.environ.get("EXPANDER_SAE_THREADS", "1"))


def run(main: Callable[..., bool | None], stage: str | None = None) -> None:
    """Call `main` with its output in the log file and the command line's options as its arguments.

    Each parameter is an option of its name, required unless its default is None: JSON where it is annotated
    as a dict, a number where as an int, any number of files where as a list (or @FILE, which holds one a
    line), else a file. Beside them are --log and --memory.

    What the user can mend (`errors.explained`) is also shown on the terminal, as one message; anything else
    leaves its traceback in the log and says where that is. With a `stage` of timings.parquet the job's
    seconds and peak memory are written beside the log, unless `main` returns False since all was done: those
    of the job that did it are kept.
    """
    set_threads(threads())
    keep_freed_memory()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_MININTERVAL", "30")
    started = time.perf_counter()
    options = vars(_parser(main).parse_args())
    log, memory = options.pop("log"), options.pop("memory")
    terminal = os.dup(2)
    try:
        _redirect(log)
        available_memory.require(memory)
        if stage is not None:
            device()  # before any work: a GPU that is not there
        worked = main(**{name: _read(main.__annotations__[name], given) for name, given in options.items()})
        if stage is not None and worked is not False:
            name = log.with_suffix("").as_posix().removeprefix(f"{LOGS}/")
            write_json(log.with_suffix(".json"), cost(stage, name, started))
    except Exception as error:
        _report(error, log, terminal)


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


def _parser(main: Callable[..., Any]) -> argparse.ArgumentParser:
    about = main.__doc__ or sys.modules["__main__"].__doc__
    parser = argparse.ArgumentParser(description=about, fromfile_prefix_chars="@")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--memory", type=float, default=0.0, help="megabytes that the job needs")
    for name, parameter in inspect.signature(main).parameters.items():
        count = "*" if get_origin(parameter.annotation) is list else None
        parser.add_argument(f"--{name}", nargs=count, required=parameter.default is parameter.empty)
    return parser


def _read(annotation: Any, given: Any) -> Any:
    """The value of an option, as the job's parameter is annotated."""
    readers: dict[Any, Any] = {dict: json.loads, int: int, list: lambda files: [*map(Path, files)]}
    return None if given is None else readers.get(get_origin(annotation) or annotation, Path)(given)


def _redirect(log: Path) -> None:
    """Send stdout and stderr to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _report(error: Exception, log: Path, terminal: int) -> NoReturn:
    """Say on the terminal and in the log what happened; the terminal first, since a disk may be full."""
    message, code = explained(error), 2
    if message is None:
        name, code = type(error).__name__, 1
        message = f"unexpected {name}: {error} (a defect, or odd arguments; traceback in {log})"
    os.write(terminal, f"error: {message}\n".encode(errors="backslashreplace"))
    if os.path.sameopenfile(2, terminal):
        raise SystemExit(code)  # the log could not be opened
    with suppress(OSError):
        if code == 1:
            traceback.print_exc()
        print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)
