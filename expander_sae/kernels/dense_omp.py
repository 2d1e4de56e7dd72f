"""Orthogonal matching pursuit on a dense dictionary by its Gram matrix, where numba can run it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from expander_sae.kernels import threads
from expander_sae.machine.piece_sizes import GRAM_BYTES

_SCORE_BYTES = 1 << 28


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


def serves(weight: Tensor, batch: int, k: int) -> bool:
    """Whether `omp` can take this dictionary [n, m] and is worth its n²·m products for `batch` samples."""
    n = weight.shape[0]
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64) or not _has_numba():
        return False
    # Correlating anew would cost batch·k·n·m.
    return n * n * weight.element_size() <= GRAM_BYTES and 2 * batch * k >= n


def omp(weight: Tensor, target: Tensor, limit: Tensor, k: int, absolute: bool) -> tuple[Tensor, Tensor]:
    """(index int64 [B, k], value [B, k]) of target [B, m]; weight [n, m] has unit (or zero) rows.

    limit [B]: the score at or under which a sample stops. Meaning as in `pursuit.block_omp`, block 1.
    Memory: n² products and k·n numbers a thread; time O(B·k²·n).
    """
    from expander_sae.kernels import numba_dense_omp  # compiled where it is used

    batch, n = target.shape[0], weight.shape[0]
    index = torch.full((batch, k), -1, dtype=torch.int64)
    value = target.new_zeros(batch, k)
    weight, length = weight.detach().contiguous(), target.norm(dim=1)
    gram = weight @ weight.t()
    dependence = weight.new_tensor(1e-12 if weight.dtype == torch.float64 else 1e-6).numpy()[()]
    for part in torch.arange(batch).split(max(1, _SCORE_BYTES // (n * weight.element_size()))):
        first, last = int(part[0]), int(part[-1]) + 1
        samples = target[first:last].contiguous()
        scores = samples @ weight.t()
        arrays = (weight, gram, scores, samples, length[first:last], limit[first:last])
        threads.run(
            numba_dense_omp.omp,
            threads.even_bounds(last - first),
            *(array.numpy() for array in arrays),
            absolute,
            dependence,
            index[first:last].numpy(),
            value[first:last].numpy(),
        )
    return index, value
