"""Run a function that releases the interpreter lock on several threads.

The numba kernels are cut here rather than by numba's own parallel loops: its thread pools either
spin beside PyTorch's or abort when two Python threads use them at once. Each piece of work is
written by one thread in a fixed order, so results do not depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

_pools: dict[int, ThreadPoolExecutor] = {}


def _pool(workers: int) -> ThreadPoolExecutor:
    if workers not in _pools:
        _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="expander-sae")
    return _pools[workers]


# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_pools.clear)


class _Kept(threading.local):
    """Threads that PyTorch had before `undisturbed`, of each Python thread as OpenMP counts them."""

    threads: int | None = None


class _Inside:
    """How many Python threads are inside `undisturbed`, and what the first of them had."""

    lock = threading.Lock()
    count = 0
    threads = 1


_kept = _Kept()
_WORTH_THREADS = 1 << 20


@contextmanager
def undisturbed(elements: int = 0) -> Iterator[None]:
    """PyTorch's own operations on one thread; the kernels keep theirs.

    PyTorch's threads spin for a while after each parallel operation, on the cores that the kernels'
    threads need next: a scoring takes 1.6 times as long beside them (2 cores, m = 576, n = 4608).

    Args:
        elements: of the largest tensor at work; beyond a million, PyTorch's threads gain more than they cost,
            and nothing is done.
    """
    if elements > _WORTH_THREADS or _kept.threads is not None:
        yield
        return
    entered = False
    try:
        with _Inside.lock:
            had = torch.get_num_threads()
            if _Inside.count == 0:
                _Inside.threads = had
            elif had == 1:  # began while another was inside, and so never had a number of its own
                had = _Inside.threads
            _Inside.count += 1
            entered, _kept.threads = True, had
            torch.set_num_threads(1)
        yield
    finally:
        if entered:
            with _Inside.lock:
                _Inside.count -= 1
                _kept.threads = None
                torch.set_num_threads(had)


def even_bounds(count: int) -> list[int]:
    """Cut [0, count) into pieces of nearly equal length, at most as many as PyTorch has threads."""
    pieces = max(1, min(_kept.threads or torch.get_num_threads(), count))
    return [count * piece // pieces for piece in range(pieces + 1)]


def run(function: Callable[..., None], bounds: Sequence[int], *arguments: Any) -> None:
    """Call function(*arguments, start, stop) for each neighbouring pair of bounds, at the same time."""
    pieces = list(pairwise(bounds))
    if len(pieces) == 1:
        function(*arguments, *pieces[0])
        return
    pool = _pool(len(pieces) - 1)
    others = [pool.submit(function, *arguments, *piece) for piece in pieces[1:]]
    try:
        function(*arguments, *pieces[0])
    finally:
        # The arrays must outlive every thread that writes to them.
        failures = [other.exception() for other in others]
    for failure in failures:
        if failure is not None:
            raise failure
