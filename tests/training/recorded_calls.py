"""A CUDA graph on a CPU: every operation of a call, recorded once and repeated on the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from expander_sae.kernels import dense, exact_topk, reference
from expander_sae.training.recording import Call

ASKS_THE_DEVICE = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")
"""Operations whose result a host has to wait for: the capture of a CUDA graph fails at them."""


class Recording(TorchDispatchMode):
    """Operations while it is entered, and their repetition, in which Python runs no more.

    What an operation makes is overwritten at each repetition, as in the memory of a CUDA graph; what it
    writes to is written to again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, keywords = func.name().removeprefix("aten::").split(".")[0], kwargs or {}
        if name in ASKS_THE_DEVICE or (name == "index" and _by_mask(args[1])):
            raise RuntimeError(f"{name} asks the device for a value: not permitted when stream is capturing")
        result = func(*args, **keywords)
        if func.namespace == "aten":
            given = {_place(each) for each in tree_leaves((args, keywords)) if isinstance(each, Tensor)}
            made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
            views = all(_place(each) in given for each in made)
            if not (views and made and not func._schema.is_mutable):
                self.calls.append((func, args, keywords, [] if views else made))
        return result

    def repeat(self) -> None:
        with torch.no_grad():
            for func, args, keywords, made in self.calls:
                again = [each for each in tree_leaves(func(*args, **keywords)) if isinstance(each, Tensor)]
                for held, value in zip(made, again, strict=bool(made)):
                    strided = held.layout is torch.strided
                    held.copy_(value.reshape(held.shape) if strided else value)  # it may have been squeezed


def _place(tensor: Tensor) -> int:
    held = tensor if tensor.layout is torch.strided else tensor.values()
    return held.untyped_storage().data_ptr()


def _by_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(each is not None and each.dtype == torch.bool for each in indices)


def recorded(body: Call, changed: Sequence[Tensor]) -> Call:
    """A `Recorder`: like that of CUDA it warms up, puts back what that changed, and records."""
    before = [tensor.clone() for tensor in changed]
    recording = Recording()
    body()
    for mode in (None, recording):
        if mode is not None:
            with mode:
                body()
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
    return recording.repeat


def without_questions(monkeypatch: Any) -> None:
    """Let the torch kernels select and sort without asking for a value, as those of a GPU do."""

    def selected(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        value, index = scores.t().sort(dim=1, descending=True, stable=True)
        return index[:, :k].contiguous(), value[:, :k].contiguous()

    def in_order(index: Tensor, n: int) -> tuple[Tensor, Tensor]:
        flat = index.flatten()
        counts = torch.zeros(n + 1, dtype=torch.int64).scatter_add_(0, flat + 1, torch.ones_like(flat))
        return flat.argsort(stable=True), counts.cumsum(0)

    def summed(index: Tensor, coefficient: Tensor, n: int) -> Tensor:
        return coefficient.new_zeros(n).scatter_add_(0, index.flatten(), coefficient.flatten())

    # Pieces of features are selected from there.
    monkeypatch.setattr(exact_topk, "topk_of_columns", selected)
    for module in (reference, dense):
        monkeypatch.setattr(module, "summed_by_feature", summed)
        monkeypatch.setattr(module, "by_feature", in_order)
