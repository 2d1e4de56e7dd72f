"""How precisely products need to be, as `torch.set_float32_matmul_precision` says."""

from __future__ import annotations

import torch

_CROSSOVER = {"highest": (1 / 12, 42), "high": (1 / 119, 31), "medium": (1 / 128, 28)}
"""From what width on a dense product beats gathering on a GPU: a share of m, but at least so many entries.

Where the lines through the times of d = 7, 30 and 102 cross, n = 8 m, k = 64, B = 4096. At m = 2048: 188
at "highest" and 16 at "medium" on an H200, 17 at "high" on an H100. At m = 512 and 576, where launches are
most of a call: 28 to 63 without an order, so the least of each precision.
"""

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
    share, least = _CROSSOVER[torch.get_float32_matmul_precision()]
    return width > max(share * m, least if m < 1024 else 0)
