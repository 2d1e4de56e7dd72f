"""The tasks of `cpu.py`: every variant of each, with the operations and bytes it needs at least."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Call, Variant, has_bfloat16_units
from benchmarks.peers import DenseEmulation, batched_qr, emulated_step, gathered_correlation
from expander_sae.cost.time_model import Shape
from expander_sae.kernels import dense
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseDictionary
from expander_sae.pursuit.omp import omp
from expander_sae.study.recipes import RECIPES
from expander_sae.training.step import TrainingState, train_step

_FLOAT = 4
_ADAM_PASSES = 7  # read parameter, gradient and two moments; write parameter and moments
BACKENDS = ["torch", *(["numba"] if find_spec("numba") else [])]


def batches(shape: Shape, count: int = 8) -> Callable[[], Tensor]:
    """A function that gives the next of `count` random batches, so that no call repeats its input."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(count, shape.batch, shape.m, generator=generator)
    return partial(next, cycle(pool.unbind()))


def columns_of(shape: Shape) -> SparseDictionary:
    """Random unit columns on an expander mask."""
    mask = MaskRecipe("expander", shape.m, shape.n, shape.d, 0).generate()
    values = torch.randn(shape.n, mask.width, generator=torch.Generator().manual_seed(1))
    return SparseDictionary(
        values / values.norm(dim=1, keepdim=True), torch.from_numpy(mask.rows), shape.m, "torch"
    )


def written_out(columns: SparseDictionary) -> Tensor:
    """[n, m]."""
    weight = torch.zeros(columns.n, columns.m)
    return weight.scatter_add_(1, columns.rows.long(), columns.values)


def in_bfloat16(name: str, make: Callable[[], Call], everything: bool = True) -> list[Variant]:
    """The variant in bfloat16, where the processor has units for it: all products, or those it asks for."""

    def narrow() -> Call:
        return torch.autocast("cpu", torch.bfloat16, enabled=everything)(make())

    return [Variant(f"{name}_bf16", narrow, dtype="bfloat16")] if has_bfloat16_units() else []


def encode_topk(shape: Shape) -> list[Variant]:
    """Pre-activations and the k largest of each sample, without gradients."""
    columns, bias = columns_of(shape), torch.zeros(shape.n)
    scores = shape.batch * (shape.n + shape.m) * _FLOAT
    dense_cost = 2.0 * shape.m * shape.n * shape.batch, shape.m * shape.n * _FLOAT + scores
    sparse_cost = 2.0 * shape.d * shape.n * shape.batch, 2 * shape.d * shape.n * _FLOAT + scores

    def emulation() -> Call:
        model, following = DenseEmulation(written_out(columns), shape.k), batches(shape)
        return torch.no_grad()(lambda: model.encode(following(), model.weight()))

    def product_and_topk(dtype: torch.dtype = torch.float32) -> Call:
        weight, following = written_out(columns).to(dtype), batches(shape)
        return lambda: (following() @ weight.t()).add_(bias).topk(shape.k, dim=1)

    def dense_topk(dtype: torch.dtype = torch.float32) -> Call:
        weight, following = written_out(columns).to(dtype), batches(shape)
        return lambda: dense.correlate_topk(weight, following(), bias, shape.k)

    def ours(backend: str) -> Call:
        dictionary = SparseDictionary(columns.values, columns.rows, shape.m, backend)
        following = batches(shape)
        return lambda: dictionary.correlate_topk(following(), bias, shape.k)

    return [
        Variant("dense_emulation", emulation, *dense_cost),
        Variant("dense_gemm_topk", product_and_topk, *dense_cost),
        Variant("dense_topk", dense_topk, *dense_cost),
        *in_bfloat16("dense_emulation", emulation),
        *in_bfloat16("dense_gemm_topk", partial(product_and_topk, torch.bfloat16)),
        *in_bfloat16("dense_topk", partial(dense_topk, torch.bfloat16)),
        *(Variant(name, partial(ours, name), *sparse_cost) for name in BACKENDS),
    ]


def train(shape: Shape, emulate: bool = True) -> list[Variant]:
    """One whole update: forward, backward, clip, Adam, firing counts; without dense ones unless `emulate`."""
    m, n, d, k, batch = shape.m, shape.n, shape.d, shape.k, shape.batch

    def cost(encode: float, each: float, stored: float) -> tuple[float, float]:
        flops = 2.0 * encode * n * batch + 6.0 * batch * k * each
        return flops, _FLOAT * (_ADAM_PASSES * stored * n + batch * (n + 4 * m))

    def emulation() -> Call:
        model, following = DenseEmulation(written_out(columns_of(shape)), k), batches(shape)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-4)
        return lambda: emulated_step(model, optimiser, following())

    def ours(backend: str | None) -> Call:
        mask = MaskRecipe("expander", m, n, d, 0).generate() if backend else None
        autoencoder = SparseAutoencoder(m, n, k, mask, backend=backend or "torch")
        autoencoder.initialise(torch.Generator().manual_seed(0))
        recipe = RECIPES["standard"]
        state, following = TrainingState.start(autoencoder, recipe, 0), batches(shape)
        return lambda: train_step(state, following(), recipe)

    return [
        *([Variant("dense_emulation", emulation, 6.0 * m * n * batch, cost(0, 0, m)[1])] if emulate else []),
        *([Variant("dense_topk", partial(ours, None), *cost(m, m, m))] if emulate else []),
        *(in_bfloat16("dense_emulation", emulation) if emulate else []),
        *(in_bfloat16("dense_topk", partial(ours, None)) if emulate else []),
        *(Variant(name, partial(ours, name), *cost(d, d, d)) for name in BACKENDS),
    ]


def pursuit(shape: Shape) -> list[Variant]:
    """Orthogonal matching pursuit with k places."""
    columns = columns_of(shape)
    flops = 2.0 * shape.d * shape.n * shape.batch * shape.k
    dense_flops = flops * shape.m / shape.d

    def ours(dictionary: Callable[[], Dictionary]) -> Call:
        held, following = dictionary(), batches(shape, 2)
        return lambda: omp(held, following(), shape.k)

    def with_backend(backend: str) -> Dictionary:
        return SparseDictionary(columns.values, columns.rows, shape.m, backend)

    def qr(gathered: bool, dtype: torch.dtype = torch.float32) -> Call:
        weight, following = written_out(columns), batches(shape, 2)
        narrow = weight.to(dtype)
        correlate = (
            gathered_correlation(columns.values, columns.rows)
            if gathered
            else lambda r: (r.to(dtype) @ narrow.t()).to(r.dtype)
        )
        return torch.no_grad()(lambda: batched_qr(weight, correlate, following(), shape.k))

    def sklearn() -> Call:
        from sklearn.linear_model import orthogonal_mp_gram

        weight, following = written_out(columns).numpy(), batches(shape, 2)
        gram = weight @ weight.T

        def call() -> np.ndarray:
            h = following().numpy()
            return orthogonal_mp_gram(gram, weight @ h.T, n_nonzero_coefs=shape.k)

        return call

    return [
        *([Variant("sklearn", sklearn)] if find_spec("sklearn") else []),
        Variant("batched_qr", partial(qr, True), flops),
        Variant("batched_qr_gemm", partial(qr, False), dense_flops),
        *in_bfloat16("batched_qr_gemm", partial(qr, False, torch.bfloat16), everything=False),
        Variant("dense_gemm", partial(ours, lambda: DenseDictionary(written_out(columns))), dense_flops),
        *(Variant(name, partial(ours, partial(with_backend, name)), flops) for name in BACKENDS),
    ]


def pool_read(shape: Shape, folder: Path, tokens: int) -> list[Variant]:
    """Shuffled batches from a raw float32 file that is mapped into memory and already in the page cache."""
    path = folder / "pool.f32"
    if not path.exists():
        block = np.random.default_rng(0).standard_normal((8192, shape.m), dtype=np.float32)
        with path.open("wb") as raw:
            for start in range(0, tokens, len(block)):
                raw.write(block[: min(len(block), tokens - start)].data)

    def gather() -> Call:
        mapped = np.memmap(path, dtype="<f4", mode="r", shape=(tokens, shape.m))
        generator = torch.Generator().manual_seed(0)

        def call() -> Tensor:
            positions = torch.randint(tokens, (shape.batch,), generator=generator)
            return torch.from_numpy(mapped[positions.numpy()])

        return call

    return [Variant("memory_map", gather, 0.0, 2.0 * shape.batch * shape.m * _FLOAT)]
