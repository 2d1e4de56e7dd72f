"""Numbers in the upper 16 bits of a float32, without torch."""

from __future__ import annotations

import numpy as np


def rounded(values: np.ndarray) -> np.ndarray:
    """The uint16 of the bfloat16 nearest to each float32, the even one of two; infinity beyond the largest.

    NaN is not expected.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def widened(bits: np.ndarray) -> np.ndarray:
    """The float32 that each bfloat16, given as uint16, is."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
