"""Levels and rounded numbers as the tensors of a weights file, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.model.precisions import Precision
from expander_sae.storage.bit_packing import pack, unpack


def step_of(name: str) -> str:
    """What the steps of a parameter's columns are called."""
    return "step" if name == "values" else f"{name}_step"


def require_shape(name: str, tensors: dict[str, Tensor], shape: tuple[int, ...]) -> None:
    """Raise `UserError` where a tensor of a weights file cannot be of this shape.

    Of packed levels, which stand here as a tensor without content, only the bytes are known: up to 7 more
    levels than there are fit into the last of them.
    """
    stored, count = tensors[name], math.prod(shape)
    fits = count <= stored.numel() < count + 8 if stored.is_meta else stored.shape == shape
    if not fits:
        found = f"{name} of shape {list(stored.shape)}"
        raise UserError(f"{found}, expected {list(shape)}; was the file altered?")


def coded(name: str, levels: Tensor, valid: Tensor | None, precision: Precision) -> Tensor:
    """Levels [n, w] as the tensor of a file: int8 of their shape (of those that are no padding alone, where
    there is any), or of fewer bits packed, uint8 [bytes].

    Raises:
        UserError: they are no levels of the precision; `name` tells whose.
    """
    flat = levels.detach().cpu().double()
    flat = flat if valid is None else flat[valid.cpu()]
    odd = precision.levels % 2
    codes = flat if odd else (flat + precision.top) / 2
    least, most = (-precision.top, precision.top) if odd else (0, precision.levels - 1)
    # A number that is none is unequal to itself.
    if not bool(((codes == codes.round()) & (codes >= least) & (codes <= most)).all()):
        raise UserError(
            f"{name}: found values that {precision.name} cannot hold, expected those that were rounded to "
            f"it; `stored({precision.name!r})` gives an autoencoder that has them"
        )
    if precision.bits == 8:
        return codes.to(torch.int8)
    return torch.from_numpy(pack(codes.to(torch.int64).numpy(), precision.bits))


def decoded(name: str, stored: Tensor, count: int, precision: Precision) -> Tensor:
    """float32 [count]: the levels that `coded` was given; `ValueError` where `stored` is not of that many."""
    kind = torch.int8 if precision.bits == 8 else torch.uint8
    if stored.dtype != kind:
        raise ValueError(f"{name} is {stored.dtype}, expected {kind} of {precision.name}")
    if precision.bits == 8:
        if stored.numel() != count:
            raise ValueError(f"{name} has {stored.numel()} values, expected {count}")
        if bool((stored < -precision.top).any()):
            raise ValueError(f"{name} has −128, expected −127 to 127")
        return stored.reshape(-1).float()
    codes = torch.from_numpy(unpack(stored.numpy(), precision.bits, count))
    return (codes if precision.levels % 2 else 2 * codes - precision.top).float()


def exact(name: str, values: Tensor) -> Tensor:
    """Values that bfloat16 holds exactly, in it; `UserError` where it does not."""
    stored = values.detach().to(torch.bfloat16)
    if not bool(((stored.to(values.dtype) == values) | values.isnan()).all()):
        found = "values that bfloat16 cannot hold, expected those that were rounded to it"
        raise UserError(f"{name}: found {found}; `stored` gives an autoencoder that has them")
    return stored


def widened(name: str, stored: Tensor) -> Tensor:
    """float32 of a tensor that `exact` made; `ValueError` where it is another's."""
    if stored.dtype != torch.bfloat16:
        raise ValueError(f"{name} is {stored.dtype}, expected torch.bfloat16")
    return stored.float()


def steps(stored: Tensor, count: int) -> Tensor:
    """float32 [count]: steps of a file; `ValueError` where they are none."""
    found = widened("step", stored)
    if found.shape != (count,) or not bool((found.isfinite() & (found > 0)).all()):
        raise ValueError(f"steps of shape {list(stored.shape)}, expected {count} numbers above 0")
    return found
