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

BACKENDS = ("auto", "torch", "numba", "triton", "densified")
"""What `compute.backend` may say."""

_MODULES = {"torch": "reference", "numba": "numba_cpu", "triton": "triton_gpu", "densified": "densified"}


_HALF = ("torch.float16", "torch.bfloat16")


def _missing(name: str, device_type: str, dtype: torch.dtype | None = None) -> str | None:
    """Why this backend cannot run here, or None."""
    if name == "numba":
        if str(dtype) in _HALF:
            return f"it has float32 and float64 only, and the values are {dtype}"
        if device_type != "cpu":
            return f"it runs on a CPU, and the device is {device_type}"
        if find_spec("numba") is None:
            return "numba is not installed (pip install 'expander-sae[fast]')"
    if name == "triton":
        if device_type != "cuda":
            return f"it runs on CUDA, and the device is {device_type}"
        if find_spec("triton") is None:
            return "triton is not installed (CUDA builds of PyTorch bring it along)"
        import torch

        if not torch.cuda.is_available():
            return "PyTorch finds no CUDA device"
    return None


def _load(name: str, device_type: str, dtype: torch.dtype | None) -> ModuleType | str:
    """The backend, or why it cannot run here."""
    reason = _missing(name, device_type, dtype)
    if reason is not None:
        return reason
    try:
        return import_module(f"expander_sae.kernels.{_MODULES[name]}")
    except (ImportError, OSError, RuntimeError) as error:
        return f"it cannot be imported: {error}"


def _preferred(device_type: str, m: int | None, width: int | None) -> list[str]:
    """What `auto` tries, fastest first."""
    if device_type == "cpu":
        return ["numba", "torch"]
    if device_type != "cuda":
        return ["torch"]
    if m is not None and width is not None:
        from expander_sae.kernels.precision import dense_is_faster

        if dense_is_faster(m, width):
            return ["densified", "torch"]
    return ["triton", "torch"]


def select(
    name: str,
    device: str | torch.device = "cpu",
    m: int | None = None,
    width: int | None = None,
    dtype: torch.dtype | None = None,
) -> ModuleType:
    """The backend module of this name for this device; `auto` is the fastest one that is there.

    Args:
        m, width: length and stored entries of a column. With them `auto` takes `densified` on CUDA where
            columns are so wide that a dense product is faster than gathering; without them, never.
        dtype: of the values; numba has none of 16 bits.

    Raises:
        UserError: an unknown name, or a backend that is asked for and cannot run.
    """
    if name not in BACKENDS:
        raise UserError(f"compute.backend: found {name!r}, expected one of {', '.join(BACKENDS)}")
    device_type = str(device).split(":")[0]
    for candidate in _preferred(device_type, m, width) if name == "auto" else [name]:
        found = _load(candidate, device_type, dtype)
        if isinstance(found, ModuleType):
            return found
    raise UserError(f"compute.backend: found {name!r}, but {found}; expected 'auto' or 'torch'")
