"""How precisely products need to be, as `torch.set_float32_matmul_precision` says."""

from __future__ import annotations

import torch

_NARROW, _WIDE = {"high": 31, "medium": 30}, {"high": 17, "medium": 15}
_WIDE_FROM = 1024
_HIGHEST = 1 / 12
"""Width above which a dense product beats gathering: below _WIDE_FROM, from there, and in float32 for each m.

From benchmarks/results/gpu.json, encode_topk on an H100 at m = 512, 576 and 2048. In float32 it is more than
was measured: the line through d = 30 and 102 is drawn on."""


PRECISIONS = {"float32": "highest", "tf32": "high", "bfloat16": "medium"}
"""What `compute.products` may say → what PyTorch calls it."""


def ask_for(products: str) -> None:
    """Take the products of float32 matrices of this process in this precision."""
    torch.set_float32_matmul_precision(PRECISIONS[products])


def products() -> str:
    """The precision in which they are taken."""
    return next(name for name, asked in PRECISIONS.items() if asked == torch.get_float32_matmul_precision())


def selection_dtype(dtype: torch.dtype) -> torch.dtype:
    """In what the products that only choose features are worked out.

    float32 becomes bfloat16 at precision "medium", where PyTorch rounds matrix products likewise;
    the values of the chosen features are then worked out again from unrounded inputs.
    """
    rounded = dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium"
    return torch.bfloat16 if rounded else dtype


def dense_is_faster(m: int, width: int) -> bool:
    """Whether columns of `width` entries out of m are better multiplied as dense ones on a GPU."""
    precision = torch.get_float32_matmul_precision()
    if precision == "highest":
        return width > _HIGHEST * m
    return width > (_NARROW if m < _WIDE_FROM else _WIDE)[precision]
