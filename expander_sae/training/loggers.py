"""Where logged training rows go: CSV, TensorBoard, Weights & Biases, trackio, or any function of yours.

A logger is called with a row {step, loss, …} as soon as it is known, as `Trainer(on_log=…)` and
`train(report=…)` do:

    with CsvLogger("training.csv") as csv, TensorBoardLogger("runs/mine") as board:
        Trainer(activations, n=4608, d=30, k=64, on_log=together(csv, board)).fit(1500)

Nothing is written, and nothing that is there removed, before the first row. Where training goes on from a
checkpoint, `Trainer` hands the rows of the checkpoint to `resume`, so that the log is whole. None of the
loggers is needed for training. TensorBoard, W&B and trackio are imported when a logger is made.
"""

from __future__ import annotations

import csv
import os
import stat
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from expander_sae.errors import UserError

Row = Mapping[str, float]
Report = Callable[[dict[str, float]], None]


class Logger(AbstractContextManager["Logger"]):
    """A context manager that is called with rows; what it opened is closed at the end."""

    @abstractmethod
    def __call__(self, row: Row) -> None:
        """Take a row."""

    def resume(self, rows: Sequence[Row]) -> None:
        """Take the rows that a checkpoint holds, before those that follow it."""
        for row in rows:
            self(row)

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back."""

    def __exit__(self, *error: object) -> None:
        self.close()


class CsvLogger(Logger):
    """A line a row, each written at once, under the names of the first row.

    The first row replaces what the file held; until then it is left as it is.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Not "w", which would empty the log of a finished training that has nothing to add.
            self._stream = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115, closed by `close`
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        self._names: list[str] = []

    def __call__(self, row: Row) -> None:
        writer = csv.writer(self._stream, lineterminator="\n")
        if not self._names:
            if stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode):
                self._stream.truncate(0)
            self._names = list(row)
            writer.writerow(self._names)
        writer.writerow([_number(row[name]) for name in self._names])
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _without_step(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step"}


class TensorBoardLogger(Logger):
    """Scalars `{group}/{name}` in an event file below `folder`; view with ``tensorboard --logdir``.

    A folder that has events already keeps them, and is not told again of the rows of a checkpoint.

    Raises:
        UserError: the package tensorboard is not installed, or the folder cannot be made.
    """

    def __init__(self, folder: str | Path, group: str = "train") -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            how = "pip install 'expander-sae[tensorboard]'"
            raise UserError(f"TensorBoard: the package is not installed ({how})") from None
        try:
            if "://" not in str(folder):
                Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
        # It writes a file as soon as it is made.
        self._make: Any = partial(SummaryWriter, str(folder))
        self._writer: Any = None
        self._folder, self._group = Path(folder), group

    def resume(self, rows: Sequence[Row]) -> None:
        if not any(self._folder.glob("events.out.tfevents.*")):
            super().resume(rows)

    def __call__(self, row: Row) -> None:
        if self._writer is None:
            self._writer = self._make()
        for name, value in _without_step(row).items():
            self._writer.add_scalar(f"{self._group}/{name}", value, int(row["step"]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _RunLogger(Logger):
    """Rows to a run of a package that is used as wandb is: `init`, `log` and `finish`."""

    _package: ClassVar[str]
    _called: ClassVar[str]

    def __init__(self, project: str, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        try:
            package = import_module(self._package)
        except ImportError:
            how = f"pip install {self._package}"
            raise UserError(f"{self._called}: the package is not installed ({how})") from None
        self._run: Any = package.init(project=project, config=dict(config or {}), **options)

    def __call__(self, row: Row) -> None:
        self._run.log(_without_step(row), step=int(row["step"]))

    def close(self) -> None:
        self._run.finish()


class WandbLogger(_RunLogger):
    """Rows to a run of Weights & Biases, which asks for its own login; ``WANDB_MODE=offline`` needs none.

    config: settings shown beside the run. options: passed on to ``wandb.init``.

    Raises:
        UserError: the package wandb is not installed.
    """

    _package, _called = "wandb", "W&B"


class TrackioLogger(_RunLogger):
    """Rows to a run of trackio, kept on this machine; view with ``trackio show``.

    config: settings shown beside the run. options: passed on to ``trackio.init``.

    Raises:
        UserError: the package trackio is not installed.
    """

    _package, _called = "trackio", "trackio"


class Together(Logger):
    """One logger that tells all of these, in order. Closing them is left to whoever opened them."""

    def __init__(self, *loggers: Report) -> None:
        self._loggers = loggers

    def __call__(self, row: Row) -> None:
        for logger in self._loggers:
            logger(dict(row))

    def resume(self, rows: Sequence[Row]) -> None:
        for logger in self._loggers:
            if isinstance(logger, Logger):
                logger.resume(rows)

    def close(self) -> None:
        """Close none of them."""


def together(*loggers: Report) -> Together:
    """One logger that tells all of these, in order. Functions are not told of rows before a checkpoint."""
    return Together(*loggers)
