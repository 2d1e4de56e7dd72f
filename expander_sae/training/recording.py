"""A function of tensors that stay, recorded once and then repeated: on NVIDIA GPUs a CUDA graph.

A training step takes 52 launches. Launched one by one they keep an H100 waiting: at B = 256 it works 0.26 ms
of 1.3 to 3.4 ms. A graph starts all of them at once.

What is recorded must read and write the same tensors each time, and must not ask the device for a value;
nothing of Python runs again. What it makes anew lies in memory of the graph, which the next repetition
overwrites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dense import Dense
from expander_sae.model.sparse import Sparse

Call = Callable[[], None]
Recorder = Callable[[Call, Sequence[Tensor]], Call]
"""From a function, and the tensors that it changes, to what repeats it. Recording changes nothing in them."""

_WARM_UPS = 3
"""Calls before a recording: kernels are compiled, libraries make their handles, caches are filled."""


_BRANCHES = 16
"""Most streams of a recording: sixteen steps beside each other were measured to keep an H100 busy."""


def recorded_on_cuda(body: Call, changed: Sequence[Tensor]) -> Call:
    """The function as a CUDA graph; calling what is returned replays it on the current stream."""
    before = [tensor.clone() for tensor in changed]
    with torch.cuda.device(changed[0].device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                body()
        torch.cuda.current_stream().wait_stream(aside)
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        del before
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            body()
    return graph.replay


def recorder_for(autoencoders: Sequence[SparseAutoencoder]) -> Recorder | None:
    """How steps of these are recorded; None where they are called each time: on CPUs, and where a step asks
    its device for a value."""
    return recorded_on_cuda if autoencoders and all(map(_stays_on_device, autoencoders)) else None


def _stays_on_device(autoencoder: SparseAutoencoder) -> bool:
    """Whether a step is launched without waiting for a result: with Triton's selection, in one program."""
    if not autoencoder.b_dec.is_cuda or find_spec("triton") is None:
        return False
    from expander_sae.kernels.triton_topk import plan

    columns = [each for each in (autoencoder.decoder, autoencoder.free) if each is not None]
    # Of columns that grow, what was worked out from their rows would be of the first ones.
    if not all(isinstance(each, Sparse | Dense) and not each.grows for each in columns):
        return False
    kernels = [each.kernels() for each in columns]
    own = all(kernel is None or kernel.__name__.endswith(("triton_gpu", "densified")) for kernel in kernels)
    return own and plan(autoencoder.n, autoencoder.k).feasible


class Branches:
    """Calls that share no tensor which one of them writes, made beside each other.

    On CUDA they are dealt to streams, which start from the current one and join it again: a graph records
    them as branches. Elsewhere one follows the other.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        several = device.type == "cuda" and count > 1
        self._streams = [torch.cuda.Stream(device) for _ in range(min(count, _BRANCHES))] if several else []

    def __call__(self, calls: Sequence[Call]) -> None:
        if not self._streams:
            for call in calls:
                call()
            return
        here = torch.cuda.current_stream(self._streams[0].device)
        for stream in self._streams:
            stream.wait_stream(here)
        for number, call in enumerate(calls):
            with torch.cuda.stream(self._streams[number % len(self._streams)]):
                call()
        for stream in self._streams:
            here.wait_stream(stream)
