"""Rounds of a pursuit on an NVIDIA GPU: the task `rounds` of `gpu.py`, one encoding beside them.

Decoders of equal numbers of values: an expander, a hybrid, and a small dense dictionary of ⌊dn/m⌋ columns.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu_tasks import Following, GpuVariant, fresh
from benchmarks.measure import Call
from benchmarks.tasks import Shape
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import Dictionary, SparseCode
from expander_sae.pursuit.block_omp import block_omp

_ROUNDS = (1, 2, 4, 8, 16)
"""Beside k rounds, which are OMP; a round takes k over this many columns, and the last what is left."""

_HYBRID = "hybrid80"
_CHECKED = 32


def decoders(shape: Shape, d: int, backend: str) -> dict[str, SparseAutoencoder]:
    """Name → an autoencoder as training starts it. A hybrid of no sparse value is left out."""
    small = max(shape.k, d * shape.n // shape.m)
    recipes: dict[str, Mask | MaskRecipe | None] = {
        "expander": MaskRecipe("expander", shape.m, shape.n, d, 0).generate(),
        "hybrid": MaskRecipe(_HYBRID, shape.m, shape.n, d, 0),
        f"dense {small}": None,
    }
    found = {}
    for name, support in recipes.items():
        n = small if support is None else shape.n
        try:
            held = SparseAutoencoder(shape.m, n, shape.k, support, backend=backend)
        except ValueError:  # so few values that a dense column leaves none
            continue
        held.initialise(torch.Generator().manual_seed(0))
        found[name] = held
    return found


@torch.no_grad()
def residual_error(found: SparseCode, exact: Dictionary, h: Tensor, k: int, block: int) -> float:
    """How far the mean of ‖h − ĥ‖/‖h‖ is from that of the same rounds in float64, whatever columns it has."""

    def left(code: SparseCode) -> Tensor:
        return (h.double() - exact.synthesize(code)).norm(dim=1) / h.double().norm(dim=1)

    other = block_omp(exact, h.double(), k, block)
    mine = SparseCode(found.index, found.value.double())
    return float((left(mine).mean() - left(other).mean()).abs())


def rounds(shape: Shape, widths: list[int], dtype: str, device: str, names: list[str]) -> list[GpuVariant]:
    """Each decoder's encoding, and its pursuit in 1, 2, 4, 8, 16 and k rounds, of backend auto."""
    k, variants = shape.k, []
    h = fresh(shape, device)[:_CHECKED]
    for d in widths:
        for name, autoencoder in decoders(shape, d, "auto").items():
            exact = deepcopy(autoencoder).double().dictionary()
            dictionary = autoencoder.to(device).dictionary()
            bias = torch.zeros(dictionary.n, device=device)

            def encoding(following: Following, dictionary: Dictionary, bias: Tensor) -> Call:
                return lambda: dictionary.correlate_topk(following(), bias, k)

            make = partial(encoding, dictionary=dictionary, bias=bias)
            variants.append(GpuVariant(f"{name}, encoder", d, make))
            for count in [number for number in _ROUNDS if number < k] + [k]:
                block = -(-k // count)
                call = partial(block_omp, dictionary, k=k, block=block)
                error = partial(_checked, call, exact, h, k, block)
                variants.append(GpuVariant(f"{name}, {count}", d, partial(_pursuing, call), error))
    return variants


def _pursuing(call: Callable[[Tensor], SparseCode], following: Following) -> Call:
    return lambda: call(following())


def _checked(call: Callable[[Tensor], SparseCode], exact: Dictionary, h: Tensor, k: int, block: int) -> float:
    found = call(h)
    return residual_error(SparseCode(found.index.cpu(), found.value.cpu()), exact, h.cpu(), k, block)
