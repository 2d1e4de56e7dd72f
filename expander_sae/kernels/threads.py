"""Run a function that releases the interpreter lock on several threads.

The numba kernels are cut here rather than by numba's own parallel loops: its thread pools either
spin beside PyTorch's or abort when two Python threads use them at once. Each piece of work is
written by one thread in a fixed order, so results do not depend on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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


def even_bounds(count: int) -> list[int]:
    """Cut [0, count) into at most `torch.get_num_threads()` pieces of nearly equal length."""
    pieces = max(1, min(torch.get_num_threads(), count))
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
