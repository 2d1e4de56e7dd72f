"""Whose a folder is: one `make` at a time, and a second one is told who works there.

Snakemake locks a folder but does not say for whom, and its lock outlives a killed run. Here each run
keeps a record of its process from before it locks until it ends. While one of these processes, or a
job that it started, is alive, the folder is taken. Snakemake called by hand lets runs side by side that
make different files: there is a record for each.

The lock between processes is the kernel's, by `fcntl`: the library filelock would replace two lines here, and
neither the records nor the search for jobs, which are what a lock cannot tell.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.storage.files import read_json, write_json

VARIABLE = "EXPANDER_SAE_RUN"
"""An environment variable that every job inherits: the name of the run that started it."""

RECORDS = ".snakemake/owners"
"""A file for each run: HOST-PID.json."""

_GUARD = ".snakemake/owners.guard"
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
    def record(self) -> str:
        """Where it is recorded, from the run's folder."""
        return f"{RECORDS}/{re.sub(r'[^A-Za-z0-9.]', '_', self.host)}-{self.pid}.json"

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def is_this_process(self) -> bool:
        return self.is_here and self.pid == os.getpid() and self.is_alive()

    def is_alive(self) -> bool:
        """Whether the process itself runs, on this machine; not another that got its number."""
        created = _created(self.pid)
        return created is not None and abs(created - self.created) < 2

    def jobs(self) -> list[str]:
        """Processes on this machine that were started by it: `number (program)`."""
        psutil, found = _psutil(), []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(VARIABLE) == self.name:
                    found.append(f"{process.pid} ({process.name()})")
            except psutil.Error:
                continue
        return found


def _psutil() -> Any:
    try:
        import psutil
    except ImportError:
        advice = "install it with `pip install 'expander-sae[workflow]'`"
        raise UserError(f"psutil: not installed, expected it, to see which processes run; {advice}") from None
    return psutil


def _created(pid: int) -> float | None:
    psutil = _psutil()
    try:
        process = psutil.Process(pid)
        # A zombie is dead and waits only for its parent to notice.
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def write(folder: Path = Path()) -> None:
    """Record that this process works in the folder, beside others that do.

    To be called before Snakemake locks: a lock whose run is not on record yet would be taken for that
    of a run on record which is gone.
    """
    with _alone(folder):
        _write(folder)


def remove(folder: Path = Path()) -> None:
    """Take this process off record, where it has ended in good order: unless jobs of it still work."""
    owner = Owner.this_process()
    path = folder / owner.record
    if path.exists() and not owner.jobs():
        with _alone(folder):
            path.unlink(missing_ok=True)


def take(unlock: Callable[[], None], folder: Path = Path()) -> None:
    """Make the folder this process's, or raise `UserError` saying whose it is.

    Snakemake's lock is removed by `unlock` where all runs on record, one at least, are of this machine and
    gone, and their jobs too. A run of another machine cannot be seen from here: it counts as there as long
    as there is a lock, and its record stays.
    """
    with _alone(folder):
        locked = any((folder / _LOCKS).glob("*"))
        records = {path: _read(path) for path in _records(folder)}
        others = {path: owner for path, owner in records.items() if not (owner and owner.is_this_process)}
        for path, owner in others.items():
            if owner is not None and (locked or owner.is_here):
                _refuse_if_in_use(owner, folder)
            elif owner is None and locked:
                raise UserError(_nobody(folder, f"{path}: found a record that cannot be read"))
        if locked:
            gone = ", ".join(f"{owner.began} (process {owner.pid})" for owner in others.values() if owner)
            if not gone:
                found = f"{folder / _LOCKS}: found a lock without an owner, expected none"
                raise UserError(_nobody(folder, found))
            print(f"unlocking: the run of {gone} is gone", file=sys.stderr)
            unlock()
        for path, owner in others.items():
            if owner is None or owner.is_here:
                path.unlink(missing_ok=True)
        _write(folder)


def _nobody(folder: Path, found: str) -> str:
    return f"{found}; if no snakemake works in {folder.absolute()}, remove its lock with `snakemake --unlock`"


def _refuse_if_in_use(owner: Owner, folder: Path) -> None:
    what = f"{folder.absolute()}: in use by a run of the workflow since {owner.began}, process {owner.pid}"
    if not owner.is_here:
        where = f"on the machine {owner.host}, which cannot be seen from {socket.gethostname()}"
        advice = f"if it is gone remove its lock with `snakemake --unlock` and {owner.record}"
        raise UserError(f"{what} {where}; wait for it, or {advice}")
    if owner.is_alive():
        raise UserError(f"{what}; wait for it or end it (kill {owner.pid})")
    if jobs := owner.jobs():
        gone = f"{folder.absolute()}: the run of {owner.began} (process {owner.pid}) is gone"
        advice = f"{', '.join(jobs)}; wait for them or end them (kill NUMBER)"
        raise UserError(f"{gone}, but its jobs still work: {advice}")


def _write(folder: Path) -> None:
    owner = Owner.this_process()
    write_json(folder / owner.record, asdict(owner))


def _records(folder: Path) -> list[Path]:
    """The records, without those that are being written."""
    return sorted(path for path in (folder / RECORDS).glob("*.json") if not path.name.startswith("."))


def _read(path: Path) -> Owner | None:
    """The recorded owner; None where the record is not a whole one."""
    try:
        found = read_json(path)
        return Owner(str(found["host"]), int(found["pid"]), float(found["created"]), str(found["began"]))
    except (UserError, KeyError, TypeError, ValueError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time look and take."""
    guard = folder / _GUARD
    guard.parent.mkdir(parents=True, exist_ok=True)
    with open(guard, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
