"""How many samples a device works on at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SHARE = 1 / 16
"""Of a device's memory: what one call may take beside what a process holds."""

_MOST = 1 << 14
"""Samples beyond which a larger batch makes a GPU no faster."""


def samples_at_once(device: torch.device, bytes_each: int, on_cpu: int) -> int:
    """Samples of `bytes_each` in one batch: `on_cpu` on a CPU, elsewhere what the device's memory allows.

    By the memory that the device has and not by what is free, so that batches are the same in every run.
    """
    if device.type != "cuda":
        return on_cpu
    import torch

    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, min(_MOST, int(_SHARE * memory) // bytes_each))
