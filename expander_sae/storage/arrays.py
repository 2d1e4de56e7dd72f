"""Arrays of users as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError

HALF = (torch.float16, torch.bfloat16)
"""What numpy lacks or computes slowly, and too coarse for sums and pursuits."""
_PIECE = 8192


def widened(tensor: Tensor) -> Tensor:
    """Numbers of 16 bits as float32; others as they are."""
    return tensor.float() if tensor.dtype in HALF else tensor


def norms_of(rows: Tensor | np.ndarray) -> np.ndarray:
    """Norms float64 [N] of rows [N, m], summed in float64, a few thousand rows at a time."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _PIECE):
        part = rows[start : start + _PIECE]
        wide = part.detach().double().cpu().numpy() if isinstance(part, Tensor) else part.astype(np.float64)
        found[start : start + _PIECE] = np.linalg.norm(wide, axis=1)
    return found


def as_tensor(values: Tensor | np.ndarray, name: str = "activations") -> Tensor:
    """A tensor as it is; an array as a tensor on the CPU, of the same memory where torch can use it.

    Torch has no negative strides and no foreign byte order: such arrays are copied.
    """
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray):
        raise UserError(f"{name}: found {type(values).__name__}, expected a tensor or a numpy array")
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if any(stride < 0 for stride in values.strides):
        values = np.ascontiguousarray(values)
    try:
        return torch.from_numpy(values)
    except TypeError:
        raise UserError(f"{name}: found {values.dtype}, expected numbers") from None
