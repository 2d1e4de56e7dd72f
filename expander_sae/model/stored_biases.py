"""The biases of an autoencoder in a precision: rounded, as the tensors of a weights file, and back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from expander_sae.model import rounding, stored_values
from expander_sae.model.precisions import FLOAT32, PRECISIONS, Precision

_LEVELS = PRECISIONS["int8"]
"""Of b_enc beside values on levels, with one step for all n numbers. In float32 they would be more bytes than
the values of small d; in 8 bits they cost no error that was seen."""


def rounded(b_enc: Tensor, b_dec: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """(b_enc [n], b_dec [m]) as a file of this precision holds them.

    b_dec is in bfloat16 whatever the levels are: a few of its m numbers are as long as all others together.
    """
    if precision.name == FLOAT32:
        return b_enc, b_dec
    b_dec = b_dec.to(torch.bfloat16).to(b_dec.dtype)
    if not precision.levels:
        return b_enc.to(torch.bfloat16).to(b_enc.dtype), b_dec
    levels, step = rounding.one_step(b_enc, _LEVELS)
    return levels * step, b_dec


def tensors(b_enc: Tensor, b_dec: Tensor, precision: Precision) -> dict[str, Tensor]:
    """What a file holds of biases that are `rounded`; `UserError` where they are not."""
    if precision.name == FLOAT32:
        return {"b_enc": b_enc, "b_dec": b_dec}
    held = {"b_dec": stored_values.exact("b_dec", b_dec)}
    if not precision.levels:
        return held | {"b_enc": stored_values.exact("b_enc", b_enc)}
    return held | {"b_enc": stored_values.coded("b_enc", b_enc / step_of(b_enc), None, _LEVELS)}


def step_of(b_enc: Tensor) -> float:
    """The step of a b_enc that is `rounded` to levels: its largest magnitude is at the top one."""
    return float(rounding.one_step(b_enc, _LEVELS)[1])


def restored(stored: dict[str, Tensor], step: Any, precision: Precision) -> tuple[Tensor, Tensor]:
    """(b_enc, b_dec) of a file's tensors, and of the step that its header has where there are levels.

    Raises:
        KeyError, ValueError: they are another precision's.
    """
    b_enc, b_dec = stored["b_enc"], stored["b_dec"]
    if precision.name == FLOAT32:
        return b_enc, b_dec
    b_dec = stored_values.widened("b_dec", b_dec)
    if not precision.levels:
        return stored_values.widened("b_enc", b_enc), b_dec
    if not isinstance(step, float) or not 0 < step < math.inf:
        raise ValueError(f"b_enc_step is {step!r}, expected a number above 0")
    return stored_values.decoded("b_enc", b_enc, b_enc.numel(), _LEVELS) * step, b_dec


def stored_bytes(m: int, n: int, precision: Precision, wide: int = 4) -> int:
    """Bytes of both; `wide`: of a number that is not rounded."""
    if precision.name == FLOAT32:
        return wide * (n + m)
    return n + 2 * m if precision.levels else 2 * (n + m)
