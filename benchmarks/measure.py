"""Interleaved timing, memory peaks, and what the machine can do at best."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

Call = Callable[[], object]

_TURN = 0.02
"""Seconds of timed, and before them of untimed, calls."""


@dataclass
class Variant:
    """One way to do a task.

    make: builds everything and returns the call to be timed. flops, traffic: useful operations and
    the least bytes one call must move, for shares of the ceilings; 0 where it makes no sense. dtype: of its
    matrix products.
    """

    name: str
    make: Callable[[], Call]
    flops: float = 0.0
    traffic: float = 0.0
    dtype: str = "float32"


@dataclass
class Timing:
    variant: Variant
    seconds: list[float] = field(default_factory=list)
    peak_mb: float | None = None

    def quantile(self, q: float) -> float:
        """Milliseconds."""
        return float(np.quantile(self.seconds, q)) * 1e3


@dataclass(frozen=True)
class Ceilings:
    """flops: of a float32 matrix product, per second; copy: bytes read and written per second."""

    flops: float
    copy: float


def measure_ceilings(quick: bool) -> Ceilings:
    """The fastest of a few runs, with the threads PyTorch has."""
    size = 1024 if quick else 2048
    a = torch.randn(size, size)
    source = torch.randn((16 if quick else 64) << 20)
    target = torch.empty_like(source)
    product = min(_seconds(lambda: a @ a) for _ in range(5))
    copy = min(_seconds(lambda: target.copy_(source)) for _ in range(5))
    return Ceilings(2 * size**3 / product, 2 * source.numel() * 4 / copy)


def has_bfloat16_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies matrices or dot products of bfloat16 by itself, as Linux lists it."""
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return False
    return not flags.isdisjoint(("amx_bf16", "avx512_bf16", "bf16", "svebf16"))


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _status_mb(key: str) -> float | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def peak_mb(variant: Variant) -> float | None:
    """Megabytes that building the variant and calling it adds at most; None where the system does not say.

    A first pass, not counted, loads and compiles what the variant needs.
    """
    call = variant.make()
    call()
    del call
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # hand freed memory back, or it hides what is used anew
        Path("/proc/self/clear_refs").write_text("5")  # forget the earlier peak
    except (OSError, AttributeError):
        return None
    before = _status_mb("VmRSS")
    call = variant.make()
    call()
    call()
    peak = _status_mb("VmHWM")
    return None if before is None or peak is None else max(0.0, peak - before)


def interleaved(variants: list[Variant], rounds: int, memory: bool = True) -> list[Timing]:
    """Time all variants in turn, `rounds` times over, so that a slow moment falls on all of them.

    A turn is 20 ms of untimed calls, at least one, then as many timed ones as fit into 20 ms (1 to 10);
    slow calls (over 0.2 s) skip the untimed one after the first turn. The threads of the variant before
    may spin for some milliseconds after its last call, which is not this one's time.
    """
    timings = [Timing(variant, peak_mb=peak_mb(variant) if memory else None) for variant in variants]
    calls = [variant.make() for variant in variants]
    typical = [0.0] * len(calls)
    for turn in range(rounds):
        for number, (call, timing) in enumerate(zip(calls, timings, strict=True)):
            if turn == 0 or typical[number] < 0.2:
                begun = time.perf_counter()
                typical[number] = _seconds(call)
                while time.perf_counter() - begun < _TURN:
                    typical[number] = _seconds(call)
            repeats = min(10, max(1, int(_TURN / max(typical[number], 1e-6))))
            timing.seconds += [_seconds(call) for _ in range(repeats)]
    return timings
