"""Backends: modules that hold the raw operations of a sparse dictionary, without gradients.

Every backend has `correlate`, `correlate_topk`, `correlate_at`, `synthesize` and `scatter_outer`
with the signatures and the meaning of `reference.py`. `select` finds one by name.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from expander_sae.errors import UserError

if TYPE_CHECKING:
    import torch

BACKENDS = ("auto", "torch", "numba")
"""What `compute.backend` may say."""


def _missing(name: str, device_type: str) -> str | None:
    """Why this backend cannot run here, or None."""
    if name == "numba":
        if device_type != "cpu":
            return f"it runs on a CPU, and the device is {device_type}"
        if find_spec("numba") is None:
            return "numba is not installed (pip install 'expander-sae[fast]')"
    return None


def select(name: str, device: str | torch.device = "cpu") -> ModuleType:
    """The backend module of this name for this device; `auto` is the fastest one that is there.

    Raises `UserError` for an unknown name and for a backend that is asked for and cannot run.
    """
    if name not in BACKENDS:
        raise UserError(f"compute.backend: found {name!r}, expected one of {', '.join(BACKENDS)}")
    device_type = str(device).split(":")[0]
    if name in ("auto", "numba"):
        reason = _missing("numba", device_type)
        if reason is None:
            try:
                return import_module("expander_sae.kernels.numba_cpu")
            except (ImportError, OSError, RuntimeError) as error:
                reason = f"it cannot be imported: {error}"
        if name == "numba":
            raise UserError(f"compute.backend: found 'numba', but {reason}; expected 'auto' or 'torch'")
    return import_module("expander_sae.kernels.reference")
