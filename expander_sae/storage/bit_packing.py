"""Small whole numbers one after the other, so many bits each, without a gap between them."""

from __future__ import annotations

import numpy as np

_PIECE = 1 << 20
"""Numbers at a time: a multiple of 8, so that every piece but the last one ends with a byte."""


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of so many numbers."""
    return -(-count * bits // 8)


def pack(numbers: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [⌈count·bits/8⌉] of whole numbers from 0 to 2^bits − 1, of any shape, in their order.

    Each number's highest bit comes first, and the first number in a byte's highest bits. What is left of the
    last byte is 0.

    Raises:
        ValueError: a number does not fit.
    """
    flat = np.ascontiguousarray(numbers).reshape(-1)
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < 1 << bits:
        raise ValueError(f"found {flat.min()} to {flat.max()}, expected 0 to {(1 << bits) - 1}")
    places = np.arange(bits - 1, -1, -1)
    out = np.empty(packed_bytes(flat.size, bits), np.uint8)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.int64)
        written = np.packbits(((piece[:, None] >> places) & 1).astype(np.uint8))
        out[start * bits // 8 :][: len(written)] = written
    return out


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """int32 [count]: the numbers that `pack` was given.

    Raises:
        ValueError: the bytes are not those of so many numbers.
    """
    if packed.dtype != np.uint8 or packed.shape != (packed_bytes(count, bits),):
        expected = f"uint8 [{packed_bytes(count, bits)}] of {count} numbers of {bits} bits"
        raise ValueError(f"found {packed.dtype} {list(packed.shape)}, expected {expected}")
    unused = len(packed) * 8 - count * bits
    if unused and packed[-1] & ((1 << unused) - 1):
        raise ValueError(f"found other bits than 0 behind the last of {count} numbers")
    weights = 1 << np.arange(bits - 1, -1, -1)
    out = np.empty(count, np.int32)
    for start in range(0, count, _PIECE):
        length = min(_PIECE, count - start)
        read = packed[start * bits // 8 :][: packed_bytes(length, bits)]
        out[start : start + length] = np.unpackbits(read)[: length * bits].reshape(length, bits) @ weights
    return out
