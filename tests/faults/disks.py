"""A full disk and a forbidden one: one message, nothing half written, and on once there is room."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from tests.faults.processes import run
from tests.faults.tally import Tally
from tests.faults.tiny_study import TinyStudy, differences, snapshot

_ROOM = "size=64m"
_NOBODY = 65534


class NoMount(Exception):
    """No small file system can be had here."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `folder`."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoMount(str(error)) from None
    if mounted.returncode:
        raise NoMount(" ".join(mounted.stderr.split()))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_disk(
    study: TinyStudy, calm: Path, scratch: Path, expected: dict[str, str], trials: int, draw: random.Random
) -> Tally:
    """Run on disks too small by turns; then give them room and run on."""
    tally = Tally("full disk")
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in (calm / "results").rglob("*"))
    for trial in range(trials):
        folder = scratch / f"full-{trial}"
        size = int(used * (trial + draw.uniform(0.1, 0.9)) / trials) // 4096 * 4096 + 4096
        try:
            with small_disk(folder / "results", size):
                last = study.run_all(folder)[-1]
                lines = [line for line in last.output.splitlines() if line.startswith("error: ")]
                clear = len(lines) == 1 and "No space left on device" in lines[0]
                # A checkpoint is whole too, and what the next attempt goes on from.
                left = {
                    n: sha for n, sha in snapshot(folder).items() if not n.endswith("checkpoint.safetensors")
                }
                wrong, _ = differences(expected, left)
                ended = last.code == 2 and clear and "Traceback" not in last.output
                tally.fault(
                    (ended and not wrong) or last.code == 0,
                    f"{size} bytes: code {last.code}, left {wrong}: {last.output[-600:]}",
                )
                remount = ["mount", "-o", f"remount,{_ROOM}", str(folder / "results")]
                subprocess.run(remount, check=True, capture_output=True)
                again = study.run_all(folder)[-1]
                if again.code:
                    tally.fault(False, f"with room again: {again.output[-600:]}")
                tally.result(*differences(expected, snapshot(folder)))
        except NoMount as error:
            tally.skipped = f"no small file system can be mounted here ({error})"
            return tally
        shutil.rmtree(folder)
    return tally


def forbid(study: TinyStudy, calm: Path, scratch: Path, expected: dict[str, str]) -> Tally:
    """Take away the right to write into results/, or to read a file; then give it back."""
    tally = Tally("removed permissions")
    if os.getuid() == 0:
        probe = run(lambda: _drop(), scratch)
        if probe.code:
            tally.skipped = "the process has root's rights and cannot lay them down"
            return tally
    for number, (job, logs) in enumerate(product(study.jobs, (False, True))):
        folder = scratch / f"forbidden-{number}"
        shutil.copytree(calm / "results", folder / "results")
        for path in sorted((folder / "results").rglob("*"), reverse=True):
            is_log = (folder / "results" / "logs") in (path, *path.parents)
            if is_log != logs:  # either the logs may be written, and nothing else be read, or the reverse
                path.chmod(0o777 if path.is_dir() else 0o666)
            else:
                path.chmod(0o555 if path.is_dir() else 0o000)

        def work(inner=study.work(job)) -> None:  # noqa: B008
            _drop()
            inner()

        ended = run(work, folder)
        lines = [line for line in ended.output.splitlines() if line.startswith("error: ")]
        clear = ended.code == 2 and len(lines) == 1 and "Permission denied" in lines[0]
        tally.fault(
            clear and "Traceback" not in ended.output, f"{job.stage}: {ended.code} {ended.output[-500:]}"
        )
        for path in (folder / "results").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        tally.result(*differences(expected, snapshot(folder)))
        shutil.rmtree(folder)
    return tally


def _drop() -> None:
    if os.getuid() == 0:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
