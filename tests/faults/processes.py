"""Jobs as forked children of a process that has imported everything: a kill costs milliseconds.

The parent must start no thread and run no kernel itself, since a fork copies neither.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


def preload() -> None:
    """Import what the jobs import."""
    if str(SCRIPTS) not in sys.path:
        sys.path.insert(0, str(SCRIPTS))
    import job  # noqa: F401
    import transformers  # noqa: F401
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

    import expander_sae.activations.corpus
    import expander_sae.activations.extraction
    import expander_sae.activations.pool
    import expander_sae.evaluation.runs
    import expander_sae.measurements.tables
    import expander_sae.study.config
    import expander_sae.training.run_folder  # noqa: F401


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: the signal), seconds, file events, terminal output."""

    code: int
    seconds: float
    events: int
    output: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def run(
    work: Callable[[], Any],
    cwd: Path,
    kill_after: float | None = None,
    kill_at_event: int | None = None,
    timeout: float = 300.0,
) -> Ended:
    """Do `work` in a child; SIGKILL it after some seconds or as it touches its n-th file below results/."""
    read_events, write_events = os.pipe()
    output = Path(cwd) / f".output-{os.getpid()}"
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(read_events)
        _become(output, cwd)
        _watch(write_events, kill_at_event)
        os._exit(_exit_code(work))
    os.close(write_events)
    limit = timeout if kill_after is None else kill_after
    code = _wait(child, began + limit)
    if code is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        code = -signal.SIGKILL if kill_after is not None else 124
    seconds = time.perf_counter() - began
    with os.fdopen(read_events, "rb") as stream:
        events = len(stream.read())
    text = output.read_text(errors="replace") if output.exists() else ""
    output.unlink(missing_ok=True)
    return Ended(code, seconds, events, text)


def _wait(child: int, until: float) -> int | None:
    """Exit code of a child; None where it has not ended in time."""
    pause = 0.0005
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        left = until - time.perf_counter()
        if left <= 0:
            return None
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.02)


def _become(output: Path, cwd: Path) -> None:
    os.setsid()
    with open(output, "wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    os.chdir(cwd)


def _watch(descriptor: int, kill_at: int | None) -> None:
    """Write a byte for each file that is opened, renamed or removed below results/; die at the n-th."""
    count = 0
    os.set_blocking(descriptor, False)  # nobody reads before the end, and many events fill a pipe

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "mmap.__new__") or not arguments:
            return
        name = arguments[0]
        if event != "mmap.__new__" and "results" not in os.fsdecode(
            name if isinstance(name, str | bytes) else b""
        ):
            return
        count += 1
        with contextlib.suppress(BlockingIOError):
            os.write(descriptor, b".")
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _exit_code(work: Callable[[], Any]) -> int:
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def script(arguments: list[str]) -> Callable[[], None]:
    """The work of ``python SCRIPT ARGUMENTS``."""

    def work() -> None:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")

    return work


def isolated(work: Callable[[], dict[str, Any]], cwd: Path, timeout: float) -> dict[str, Any] | None:
    """What `work` returns, computed in a child; None where that died or took too long."""
    answer = Path(cwd) / f".answer-{os.getpid()}.json"

    def save() -> None:
        answer.write_text(json.dumps(work()))

    ended = run(save, cwd, timeout=timeout)
    try:
        return json.loads(answer.read_text()) if ended.code == 0 else None
    except (OSError, ValueError):
        return None
    finally:
        if ended.code:
            print(ended.output[-2000:], file=sys.stderr)
        answer.unlink(missing_ok=True)
