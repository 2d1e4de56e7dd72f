"""Whose a folder is: one run of the workflow at a time, and a second one is told which that is.

Snakemake locks a folder but does not say for whom, and its lock outlives a killed run. The record
here holds the process: while that, or a job that it started, is alive, the folder is taken.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from expander_sae.errors import UserError
from expander_sae.files import read_json, write_json

VARIABLE = "EXPANDER_SAE_RUN"
"""An environment variable that every job inherits: the name of the run that started it."""

_RECORD = ".snakemake/owner.json"
_LOCKS = ".snakemake/locks"


@dataclass(frozen=True)
class Owner:
    """A process of the workflow. created: its start, in seconds since 1970, by its own machine."""

    host: str
    pid: int
    created: float
    began: str

    @classmethod
    def this_process(cls) -> Owner:
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), os.getpid(), _created(os.getpid()) or 0.0, began)

    @property
    def name(self) -> str:
        """What its jobs carry in `VARIABLE`."""
        return f"{self.host}/{self.pid}/{self.created:.0f}"

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether the process itself runs, on this machine; not another that got its number."""
        created = _created(self.pid)
        return created is not None and abs(created - self.created) < 2

    def jobs(self) -> list[str]:
        """Processes on this machine that were started by it: `number (program)`."""
        import psutil

        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(VARIABLE) == self.name:
                    found.append(f"{process.pid} ({process.name()})")
            except psutil.Error:
                continue
        return found


def _created(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        # A zombie is dead and waits only for its parent to notice.
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def write(folder: Path = Path()) -> None:
    """Record this process as the owner of the folder, unless another one is and lives.

    Snakemake itself lets runs side by side that make different files; the first then stays on record.
    """
    owner = _read(folder)
    if owner is None or not owner.is_here or not owner.is_alive():
        write_json(folder / _RECORD, asdict(Owner.this_process()))


def take(unlock: Callable[[], None], folder: Path = Path()) -> None:
    """Make the folder this process's, or raise `UserError` saying whose it is.

    unlock: removes Snakemake's lock. It is called where a lock is there and its owner is gone.
    """
    with _alone(folder):
        owner, locked = _read(folder), any((folder / _LOCKS).glob("*"))
        if owner is not None and (locked or owner.is_here):
            _refuse_if_in_use(owner, folder)
        if locked:
            if owner is None:
                raise UserError(
                    f"{folder / _LOCKS}: found a lock without an owner, expected none; if no snakemake "
                    f"works in {folder.absolute()}, remove it with `snakemake --unlock`"
                )
            print(f"unlocking: the run of {owner.began} (process {owner.pid}) is gone", file=sys.stderr)
            unlock()
        write(folder)


def _refuse_if_in_use(owner: Owner, folder: Path) -> None:
    what = f"{folder.absolute()}: in use by a run of the workflow since {owner.began}, process {owner.pid}"
    if not owner.is_here:
        raise UserError(
            f"{what} on the machine {owner.host}, which cannot be seen from {socket.gethostname()}; "
            f"wait for it, or if it is gone remove its lock with `snakemake --unlock`"
        )
    if owner.is_alive():
        raise UserError(f"{what}; wait for it or end it (kill {owner.pid})")
    jobs = owner.jobs()
    if jobs:
        raise UserError(
            f"{folder.absolute()}: the run of {owner.began} (process {owner.pid}) is gone, but its jobs "
            f"still work: {', '.join(jobs)}; wait for them or end them (kill NUMBER)"
        )


def _read(folder: Path) -> Owner | None:
    """The recorded owner; None where there is no record or not a whole one."""
    try:
        found = read_json(folder / _RECORD)
        return Owner(str(found["host"]), int(found["pid"]), float(found["created"]), str(found["began"]))
    except (UserError, KeyError, TypeError, ValueError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time look and take."""
    guard = folder / f"{_RECORD}.guard"
    guard.parent.mkdir(parents=True, exist_ok=True)
    with open(guard, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
