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

    Raises:
        UserError: no real numbers that lie in memory one by one, or some that are masked; it names `name`.
    """
    if isinstance(values, Tensor):
        return _plain(values, name)
    if not isinstance(values, np.ndarray):
        raise UserError(f"{name}: found {type(values).__name__}, expected a tensor or a numpy array")
    if np.ma.is_masked(values):
        raise UserError(f"{name}: found masked values, expected none (leave out their rows)")
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if any(stride < 0 for stride in values.strides):
        values = np.ascontiguousarray(values)
    try:
        return _plain(torch.from_numpy(values), name)
    except TypeError:
        raise UserError(f"{name}: found {values.dtype}, expected numbers") from None


def _plain(tensor: Tensor, name: str) -> Tensor:
    """A tensor whose values are real numbers in memory, one by one."""
    if tensor.is_nested:
        raise UserError(f"{name}: found a nested tensor, expected rows of one length")
    if tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        raise UserError(f"{name}: found a tensor of layout {kind}, expected a dense one (tensor.to_dense())")
    if tensor.is_quantized:
        raise UserError(f"{name}: found {tensor.dtype}, expected plain numbers (tensor.dequantize())")
    if tensor.is_meta:
        raise UserError(f"{name}: found a tensor on the device meta, which has no values; expected some")
    if tensor.is_complex():
        raise UserError(f"{name}: found {tensor.dtype}, expected real numbers")
    return tensor.resolve_neg()


def finite_norms(rows: Tensor | np.ndarray, name: str = "activations") -> np.ndarray:
    """Norms float64 [N] of rows [N, m], all of finite values; else a `UserError` names the first."""
    norms = norms_of(rows)
    wrong = np.flatnonzero(~np.isfinite(norms))
    if wrong.size:
        raise UserError(f"{name}: row {wrong[0]} has a value that is not finite, expected finite activations")
    return norms
