"""How precisely products need to be, as `torch.set_float32_matmul_precision` says."""

from __future__ import annotations

import torch

_CROSSOVER = {"highest": 1 / 8, "high": 1 / 33, "medium": 1 / 67}
"""Width over m above which a dense product beats gathering on an H100: from a roofline, not measured."""


def selection_dtype(dtype: torch.dtype) -> torch.dtype:
    """In what the products that only choose features are worked out.

    float32 becomes bfloat16 at precision "medium", where PyTorch rounds matrix products likewise;
    the values of the chosen features are then worked out again from unrounded inputs.
    """
    rounded = dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium"
    return torch.bfloat16 if rounded else dtype


def dense_is_faster(m: int, width: int) -> bool:
    """Whether columns of `width` entries out of m are better multiplied as dense ones on a GPU."""
    return width > _CROSSOVER[torch.get_float32_matmul_precision()] * m
