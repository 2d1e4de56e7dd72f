"""A tensor of the device to which the host writes before each step, without waiting for the last one."""

from __future__ import annotations

import torch
from torch import Tensor

_PLACES = 4
"""Writes that may be under way: so far the host can be ahead of the device."""


class Staged:
    """`held` [shape] stays where it is; `write` fills it, in the order of the device's work.

    A copy from the host's common memory to a GPU waits for all that the GPU was told before. From page-locked
    memory it does not: there are some such places, taken in turn, each once its last copy is through.
    Elsewhere a write is a copy.
    """

    def __init__(self, *shape: int, dtype: torch.dtype, device: torch.device) -> None:
        self.held = torch.zeros(shape, dtype=dtype, device=device)
        count = _PLACES if device.type == "cuda" else 0
        self._places = [torch.zeros(shape, dtype=dtype, pin_memory=True) for _ in range(count)]
        self._through = [torch.cuda.Event() for _ in range(count)]
        self._turn = 0

    def write(self, value: Tensor) -> None:
        """Copy value [shape], on the CPU."""
        if not self._places:
            self.held.copy_(value)
            return
        self._turn = (self._turn + 1) % _PLACES
        place, through = self._places[self._turn], self._through[self._turn]
        through.synchronize()
        place.copy_(value)
        self.held.copy_(place, non_blocking=True)
        through.record(torch.cuda.current_stream(self.held.device))
