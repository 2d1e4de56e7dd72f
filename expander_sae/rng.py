"""Random streams named by (seed, purpose).

Two purposes never share a stream, so that changing how batches are drawn cannot change a mask.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_key(seed: int, purpose: str) -> int:
    """128-bit key of the stream (seed, purpose)."""
    return int.from_bytes(hashlib.sha256(f"expander-sae/{seed}/{purpose}".encode()).digest()[:16], "little")


_ONES = np.array([value.bit_count() for value in range(256)], dtype=np.int8)


class Integers:
    """Uniform integers from a Philox counter: the same on every platform and NumPy version.

    NumPy promises stable raw bits, not stable `Generator` methods; bounds are applied here by
    multiply-and-shift on 32 bits, whose bias is below bound / 2³².
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._bits = np.random.Philox(key=stream_key(seed, purpose))

    def below(self, bound: int | np.ndarray, size: int) -> np.ndarray:
        """`size` int64 values uniform on [0, bound), bound ≤ 2³¹; of several bounds, each below its own."""
        raw = self._bits.random_raw(size) >> np.uint64(32)
        return ((raw * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)

    def bell(self, size: int) -> np.ndarray:
        """`size` int8 values of mean 0 and variance 16, nearly normal: the 1s among 64 fair bits, less 32."""
        parts = []
        for start in range(0, size, 1 << 20):
            raw = self._bits.random_raw(min(1 << 20, size - start))
            parts.append(_ONES[raw.view(np.uint8)].reshape(-1, 8).sum(axis=1, dtype=np.int8) - np.int8(32))
        return np.concatenate(parts)

    def permutation(self, size: int) -> np.ndarray:
        """A uniform permutation of range(size): the order of 64-bit random keys."""
        return np.argsort(self._bits.random_raw(size), kind="stable")


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for the stream; draws are made on the CPU and moved, so devices agree."""
    import torch

    generator = torch.Generator(device="cpu")
    generator.manual_seed(stream_key(seed, purpose) & ((1 << 63) - 1))
    return generator
