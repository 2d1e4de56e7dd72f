"""The tasks of `gpu.py`: each variant with its width d, and how far its result is from float64.

A variant is built on a device for a function that supplies batches, so that timing and checking run the
same code on different data. Precisions: `float32`; `tf32`, products of float32 on tensor cores;
`bfloat16`, where dense peers keep weights and activations in bfloat16 or run under autocast, and sparse
variants select with bfloat16 products and keep float32 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import cycle
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Call
from benchmarks.peers import DenseEmulation, emulated_step
from benchmarks.tasks import Shape, columns_of
from expander_sae.kernels import backends
from expander_sae.kernels.exact_topk import topk_of_columns
from expander_sae.kernels.precision import PRECISIONS
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode, SparseDictionary
from expander_sae.study.recipes import RECIPES
from expander_sae.training.normalisation import KeptTokens, Normalisation
from expander_sae.training.recording import recorder_for
from expander_sae.training.rounds import Round
from expander_sae.training.step import TrainingState, train_step

Following = Callable[[], Tensor]
DENSE_STEP = "dense_products"
"""Our step of a dense dictionary: on CUDA whole products, see expander_sae/kernels/dense_products.py."""

_POOL = 65_536
"""Tokens that graphs draw from: they exceed the L2 cache."""

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
"""Largest accepted error of a variant, see `selection_error` and `gradient_error`."""


@dataclass(frozen=True)
class GpuVariant:
    """One way to do a task: `make` builds everything; d is m for dense columns.

    error: how far the result for fresh data is from float64, worked out beside the timing. together: how many
    autoencoders a call trains.
    """

    name: str
    d: int
    make: Callable[[Following], Call]
    error: Callable[[], float] | None = None
    flops: float = 0.0
    traffic: float = 0.0
    together: int = 1


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """What this name means for matrix products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(PRECISIONS[dtype])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def batches(shape: Shape, device: str, beyond: int) -> Following:
    """Batches in turn, so many that they take more than `beyond` bytes: no call finds its input cached."""
    count = max(2, -(-beyond // (4 * shape.batch * shape.m)))
    generator = torch.Generator(device).manual_seed(0)
    pool = torch.randn(count, shape.batch, shape.m, generator=generator, device=device)
    return partial(next, cycle(pool.unbind()))


def fresh(shape: Shape, device: str) -> Tensor:
    """Data that no timed call sees: at most 256 samples."""
    generator = torch.Generator(device).manual_seed(12345)
    return torch.randn(min(shape.batch, 256), shape.m, generator=generator, device=device)


def columns_on(shape: Shape, device: str, backend: str | ModuleType = "torch") -> SparseDictionary:
    held = columns_of(shape)
    return SparseDictionary(held.values.to(device), held.rows.to(device), shape.m, backend)


def weight_of(columns: SparseDictionary) -> Tensor:
    """[n, m] on the columns' device."""
    weight = torch.zeros(columns.n, columns.m, device=columns.device)
    return weight.scatter_add_(1, columns.rows.long(), columns.values)


def dense_columns(shape: Shape, device: str) -> Tensor:
    """Random unit columns without structure [n, m]."""
    weight = torch.randn(shape.n, shape.m, generator=torch.Generator().manual_seed(1))
    return (weight / weight.norm(dim=1, keepdim=True)).to(device)


def good_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The fastest exact top-k there is for rows of scores [B, n]."""
    if scores.is_cuda:
        return import_module("expander_sae.kernels.triton_topk").topk_of_rows(scores, None, k)
    return topk_of_columns(scores.t(), k)


def as_pair(result: object) -> tuple[Tensor, Tensor]:
    """(index, value) of whatever a variant of encode_topk returns; a dense code is taken apart."""
    if isinstance(result, SparseCode):
        return result.index, result.value
    if isinstance(result, Tensor):
        return result.nonzero()[:, 1].view(result.shape[0], -1), result[result != 0].view(result.shape[0], -1)
    if isinstance(result, torch.return_types.topk):
        return result.indices, result.values
    assert isinstance(result, tuple)
    return result


def selection_error(make: Callable[[Following], Call], weight: Tensor, h: Tensor, k: int) -> float:
    """The larger of two relative errors against float64, over all samples.

    How far the least kept score lies under the k-th largest, and how far the values are from the scores.
    """
    index, value = as_pair(make(lambda: h)())
    if index.shape != (h.shape[0], k) or bool((index.sort(dim=1).values.diff(dim=1) == 0).any()):
        return float("inf")
    scores = h.double() @ weight.double().t()
    kept, cut = scores.gather(1, index), scores.topk(k, dim=1).values[:, -1]
    missed = (cut - kept.amin(1)).clamp(min=0) / cut.abs()
    wrong = (kept - value.double()).norm(dim=1) / kept.norm(dim=1)
    return float(torch.maximum(missed, wrong).max())


def encode_topk(
    shape: Shape, widths: list[int], dtype: str, device: str, names: list[str]
) -> list[GpuVariant]:
    """Scores and the k largest of each sample, without gradients; weights are given."""
    m, n, k, batch = shape.m, shape.n, shape.k, shape.batch
    narrow, h = dtype == "bfloat16", fresh(shape, device)
    weight = dense_columns(shape, device)
    traffic = 4.0 * batch * (m + 2 * k)

    def emulation(following: Following) -> Call:
        model = DenseEmulation(weight, k).to(device)

        def call() -> object:
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=narrow):
                return model.encode(following(), model.weight())

        return call

    def product(select: Callable[[Tensor, int], object], following: Following) -> Call:
        held = weight.to(torch.bfloat16) if narrow else weight

        def call() -> object:
            part = following()
            if narrow and device == "cuda":
                return select(torch.mm(part.to(torch.bfloat16), held.t(), out_dtype=torch.float32), k)
            return select(part.to(held.dtype) @ held.t(), k)

        return call

    def ours(columns: SparseDictionary, bias: Tensor, following: Following) -> Call:
        return lambda: columns.correlate_topk(following(), bias, k)

    def variant(name: str, d: int, make: Callable[[Following], Call], w: Tensor) -> GpuVariant:
        check = partial(selection_error, make, w, h, k)
        return GpuVariant(name, d, make, check, 2.0 * d * n * batch, traffic + 6.0 * d * n)

    variants = [
        variant("dense_emulation", m, emulation, weight),
        variant("dense_gemm_topk", m, partial(product, lambda s, k: s.topk(k, dim=1)), weight),
        variant("dense_topk", m, partial(product, good_topk), weight),
    ]
    for d in widths:
        for name in names:
            columns = columns_on(replace(shape, d=d), device, backends.select(name, device))
            make = partial(ours, columns, torch.zeros(n, device=device))
            variants.append(variant(name, d, make, weight_of(columns)))
    return variants


def gradient_error(shape: Shape, backend: str, device: str) -> float:
    """Relative error of the columns' gradient, at a random code, against float64."""
    columns = columns_on(shape, device)
    ops, h = backends.select(backend, device), fresh(shape, device)
    generator = torch.Generator(device).manual_seed(1)
    index = torch.rand(h.shape[0], shape.n, generator=generator, device=device).topk(shape.k, dim=1).indices
    value, error = (torch.randn(*s, generator=generator, device=device) for s in (index.shape, h.shape))
    exact, _ = backends.select("torch", device).tied_gradients(
        columns.values.double(), columns.rows, index, value.double(), error.double(), h.double()
    )
    found, _ = ops.tied_gradients(columns.values, columns.rows, index, value, error, h)
    return float((found - exact).norm() / exact.norm())


def started(shape: Shape, backend: str | None, device: str, seed: int = 0) -> TrainingState:
    """A training at its first step; dense where there is no backend."""
    mask = MaskRecipe("expander", shape.m, shape.n, shape.d, seed).generate() if backend else None
    autoencoder = SparseAutoencoder(shape.m, shape.n, shape.k, mask, backend=backend or "torch")
    autoencoder.initialise(torch.Generator().manual_seed(seed))
    return TrainingState.start(autoencoder.to(device), RECIPES["standard"], 0)


def repeated(states: list[TrainingState], shape: Shape, device: str, tokens: int = _POOL) -> Call:
    """A call that trains all of these one step, by one graph on a GPU, on random tokens that lie there."""
    pool = torch.randn(tokens, shape.m, generator=torch.Generator(device).manual_seed(0), device=device)
    scaling = Normalisation(math.inf, 1.0, np.zeros(shape.m, np.float32), np.arange(tokens))
    recipe = replace(RECIPES["standard"], batch_size=shape.batch)
    record = recorder_for([state.autoencoder for state in states])
    together = Round(states, KeptTokens(pool, scaling, device), recipe, record)
    return lambda: together.step([3e-4] * len(states))


def train_graph(
    shape: Shape, widths: list[int], dtype: str, device: str, names: list[str]
) -> list[GpuVariant]:
    """The whole step of one and of several autoencoders, batch included, as training sessions make it."""
    backend = "triton" if "triton" in names else names[0]

    def make(name: str | None, d: int, count: int, following: Following) -> Call:
        one = replace(shape, d=d)
        return repeated([started(one, name, device, seed) for seed in range(count)], shape, device)

    planned = [(backend, d, 1) for d in widths] + [(backend, widths[0], count) for count in (4, 16)]
    planned.append((None, shape.m, 1))
    return [
        GpuVariant(name or DENSE_STEP, d, partial(make, name, d, count), together=count)
        for name, d, count in planned
    ]


def train(shape: Shape, widths: list[int], dtype: str, device: str, names: list[str]) -> list[GpuVariant]:
    """One whole update: forward, backward, clip, fused Adam, firing counts."""
    m, n, k, batch = shape.m, shape.n, shape.k, shape.batch
    narrow = dtype == "bfloat16"

    def emulation(following: Following) -> Call:
        model = DenseEmulation(dense_columns(shape, device), k).to(device)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)

        def call() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=narrow):
                emulated_step(model, optimiser, following())

        return call

    def ours(name: str | None, d: int, following: Following) -> Call:
        recipe, state = RECIPES["standard"], started(replace(shape, d=d), name, device)

        return lambda: train_step(state, following(), recipe)

    def variant(name: str | None, d: int) -> GpuVariant:
        check = partial(gradient_error, replace(shape, d=d), name, device) if name else None
        flops = 2.0 * d * n * batch + 6.0 * batch * k * d
        traffic = 4.0 * (7 * d * n + 4 * batch * m)
        return GpuVariant(name or DENSE_STEP, d, partial(ours, name, d), check, flops, traffic)

    emulated = GpuVariant("dense_emulation", m, emulation, None, 6.0 * m * n * batch)
    return [emulated, variant(None, m), *(variant(name, d) for d in widths for name in names)]
