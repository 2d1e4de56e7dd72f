"""Prints a digest of what each operation of the numba kernels returns, for `test_cached.py`.

Run by `python -m tests.kernels.digests`: a process of its own compiles them or loads them from numba's cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from expander_sae import Trainer
from expander_sae.kernels import dense_omp, numba_cpu
from expander_sae.model.dictionary import SparseDictionary
from expander_sae.pursuit.block_omp import block_omp, score_limit

from .problems import problem

KINDS = (torch.float32, torch.float64)


def operations(kind: torch.dtype) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """(name, results) on 100 samples, columns of 7 entries: loops in vectors, and what remains of them."""
    p = problem(m=48, n=200, w=7, batch=100, k=8, seed=0).to(kind)
    values, rows, h, index, x = p.values, p.rows, p.residual, p.index, p.coefficient
    yield "correlate", (numba_cpu.correlate(values, rows, h),)
    yield "correlate_topk", numba_cpu.correlate_topk(values, rows, h, p.bias, p.k)
    yield "correlate_at", (numba_cpu.correlate_at(values, rows, h, index),)
    yield "synthesize", (numba_cpu.synthesize(values, rows, index, x, p.m),)
    yield "scatter_outer", (numba_cpu.scatter_outer(rows, index, x, h),)
    centred, *code, _, error = numba_cpu.tied_forward(values, rows, p.bias, h[0], h, p.k)
    yield "tied_forward", (centred, *code, error)
    yield "tied_gradients", numba_cpu.tied_gradients(values, rows, *code, error, centred)
    unit = torch.nn.functional.normalize(values)
    limit = score_limit(h, 0)
    for selection in ("signed", "absolute"):
        yield f"omp_{selection}", numba_cpu.omp(unit, rows, h, limit, 24, selection == "absolute")
    blocks = block_omp(SparseDictionary(values, rows, p.m, backend="numba"), h, 24, block=4)
    yield "block_omp", (blocks.index, blocks.value)
    weight = torch.nn.functional.normalize(p.weight())
    yield "dense_omp", dense_omp.omp(weight, h, limit, 12, absolute=False)


def trained(codes: str) -> tuple[Tensor, ...]:
    h = torch.randn(1000, 32, generator=torch.Generator().manual_seed(0))
    shape = {"n": 128, "d": 4, "k": 6, "device": "cpu", "backend": "numba"}
    after = {} if codes == "encoder" else {"pursuit_steps": 10}
    return tuple(Trainer(h, **shape, codes=codes, batch_size=64, **after).fit(30).parameters())


def results() -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    for kind in KINDS:
        for name, tensors in operations(kind):
            yield f"{name} {kind}", tensors
    for codes in ("encoder", "omp"):
        yield f"training with codes {codes}", trained(codes)


if __name__ == "__main__":
    for name, tensors in results():
        digest = hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors))
        print(f"{name}: {digest.hexdigest()}")
