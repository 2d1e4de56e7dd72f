"""Orthogonal matching pursuit on a GPU, for every kind of columns that Triton's programs can take."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

from expander_sae.kernels import dense

_GATHERS = "expander_sae.kernels.triton_gpu"
_MULTIPLIES = "expander_sae.kernels.densified"


def serves(backend: ModuleType | None, entries: Tensor) -> bool:
    """Whether `omp` takes columns of this backend (None: dense ones) and these entries."""
    if backend is not None and backend.__name__ == _GATHERS:
        return True
    multiplied = backend is None or backend.__name__ == _MULTIPLIES
    return multiplied and entries.is_cuda and find_spec("triton") is not None


def omp(
    backend: ModuleType | None,
    values: Tensor,
    rows: Tensor | None,
    target: Tensor,
    limit: Tensor,
    k: int,
    block: int,
    absolute: bool,
) -> tuple[Tensor, Tensor]:
    """(index int64 [B, k], value [B, k]) of target [B, m]; meaning as in `pursuit.block_omp`.

    Args:
        values: unit (or zero) columns, [n, w] at rows [n, w], or dense [n, m] without rows and backend.
        limit: [B], the score at or under which a sample stops.
    """
    from expander_sae.kernels import triton_omp  # where there is Triton

    columns = triton_omp.Columns(values, rows, target.shape[1])
    if backend is None:
        scores = partial(dense.correlate, columns.values)
    elif block == 1 and backend.__name__ == _GATHERS:
        scores = None
    else:
        scores = partial(backend.correlate, columns.values, rows)
    return triton_omp.omp(columns, target, limit, k, absolute, block, scores)
