"""A progress bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import os
import sys
import time

from tqdm import tqdm


class Progress:
    """Context manager counting towards `total`; a line of the log at most every half minute."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._interval = float(os.environ.get("TQDM_MININTERVAL", "30"))

    def __enter__(self) -> Progress:
        self._done = 0
        self._started = self._reported = time.monotonic()
        options = {"total": self._total, "desc": self._label, "unit": self._unit, "unit_scale": True}
        self._bar = tqdm(**options) if sys.stderr.isatty() else None
        return self

    def to(self, done: int) -> None:
        """Report that `done` of `total` are finished."""
        if self._bar is not None:
            self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if self._bar is None and now - self._reported >= self._interval:
            self._reported = now
            self._line(now)

    def advance(self, count: int) -> None:
        """Report `count` more."""
        self.to(self._done + count)

    def _line(self, now: float) -> None:
        rate = self._done / max(now - self._started, 1e-9)
        share = f"{self._done:,}/{self._total:,} {self._unit}s"
        print(f"{self._label}: {share}, {rate:,.0f} {self._unit}s/s", file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._line(time.monotonic())
