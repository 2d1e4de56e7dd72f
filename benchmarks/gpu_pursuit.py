"""Pursuits on an NVIDIA GPU: the task `omp` of `gpu.py`, and how far its codes are from float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_tasks import Following, GpuVariant, columns_on, fresh, weight_of
from benchmarks.measure import Call
from benchmarks.peers import batched_qr
from benchmarks.tasks import Shape
from expander_sae.kernels import backends
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.pursuit.block_omp import block_omp
from expander_sae.pursuit.omp import omp

CLAIMED = (Shape(2048, 16384, 7, 64, 4096), Shape(512, 4096, 7, 64, 4096))
"""Where tokens per second are claimed: of a wide model, and of the one that batched QR is compared at."""

_CHECKED = 32
_OTHER = 0.1
"""Share of samples that may hold other columns than in float64: two scores were equal up to rounding."""


def code_error(make: Callable[[Following], Call], exact: SparseDictionary, h: Tensor, k: int) -> float:
    """Largest relative error of a sample's coefficients, by least squares in float64 on its own columns.

    Infinite where more than a tenth of the samples hold other columns than in float64.
    """
    found = make(lambda: h)()
    index, value = (found.index, found.value) if isinstance(found, SparseCode) else found
    expected = block_omp(exact, h.double(), k).index
    other = (index.sort(dim=1).values != expected.sort(dim=1).values).any(dim=1).double().mean()
    held = exact.columns(index.clamp(min=0)) * (index >= 0)[:, :, None]
    refit = torch.linalg.lstsq(held.transpose(1, 2), h.double()[:, :, None]).solution[:, :, 0]
    wrong = (value.double() - refit).norm(dim=1) / refit.norm(dim=1)
    return float("inf") if float(other) > _OTHER else float(wrong.max())


def captured(call: Callable[[Tensor], SparseCode], following: Following) -> Call:
    """The call as one CUDA graph, on a batch that is copied to where the graph reads it."""
    held = following().clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        code = call(held)

    def replay() -> SparseCode:
        held.copy_(following()[: held.shape[0]])
        graph.replay()
        return code

    return replay


def _ours(dictionary: Dictionary, k: int, graph: bool, following: Following) -> Call:
    if graph:
        return captured(lambda h: omp(dictionary, h, k), following)
    return lambda: omp(dictionary, following(), k)


def _qr(weight: Tensor, k: int, following: Following) -> Call:
    def call() -> tuple[Tensor, Tensor]:
        with torch.no_grad(), torch.device(weight.device):
            return batched_qr(weight, lambda residual: residual @ weight.t(), following(), k)

    return call


def pursuit(shape: Shape, widths: list[int], dtype: str, device: str, names: list[str]) -> list[GpuVariant]:
    """Orthogonal matching pursuit with k places.

    The peer, `batched_qr_gemm`, keeps a basis Q [B, m, k]; `dense` is ours on the same columns, written out.
    `triton_graph` is captured once and replayed.
    """
    variants = []
    h = fresh(replace(shape, batch=min(shape.batch, _CHECKED)), device)
    for d in widths:
        columns = columns_on(replace(shape, d=d), device)
        exact = SparseDictionary(columns.values.double(), columns.rows, shape.m, "torch")
        weight = weight_of(columns)
        makes = {"batched_qr_gemm": partial(_qr, weight, shape.k)}
        makes["dense"] = partial(_ours, DenseDictionary(weight), shape.k, False)
        for name in names:
            held = columns_on(replace(shape, d=d), device, backends.select(name, device))
            makes[name] = partial(_ours, held, shape.k, False)
            if name == "triton":
                makes["triton_graph"] = partial(_ours, held, shape.k, True)
        flops = 2.0 * d * shape.n * shape.batch * shape.k
        for name, make in makes.items():
            variants.append(GpuVariant(name, d, make, partial(code_error, make, exact, h, shape.k), flops))
    return variants
