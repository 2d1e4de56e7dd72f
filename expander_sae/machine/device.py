"""Where a process computes: its device, and how many threads its libraries take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from expander_sae.errors import UserError, first_line

if TYPE_CHECKING:
    import torch

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""What numpy, torch and numba read once, when they are imported."""


def set_threads(count: int) -> None:
    """Give numpy, torch and numba so many CPU threads, in this process and in those that it starts.

    To be called before any of them is imported.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))


def resolve_device(
    device: str | torch.device, key: str = "device", kinds: tuple[str, ...] | None = ("cpu", "cuda")
) -> torch.device:
    """A device that torch can use: ``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` is CUDA where there is one.

    `key` is what the user calls it, for messages; None in place of `kinds` is any kind that torch has.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    # An unknown name, a torch without CUDA, a kind of device that this torch has not: each its own kind.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = f"which torch cannot use ({first_line(error)})"
    else:
        if kinds is None or place.type in kinds:
            return place
        said = "expected auto, cpu, cuda or cuda:INDEX"
    raise UserError(f"{key}: found {str(device)!r}, {said}") from None
