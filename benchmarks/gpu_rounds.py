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
from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.shapes import hybrid_parts
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode
from expander_sae.pursuit.block_omp import block_omp

_ROUNDS = (1, 2, 4, 8, 16)
"""Beside k rounds, which are OMP; a round takes k over this many columns, and the last what is left."""

_PERCENT = 80
"""Of a hybrid's values, those in dense columns."""

_CHECKED = 32


def decoders(shape: Shape, d: int) -> dict[str, SparseAutoencoder]:
    """Name → an autoencoder as training starts it, of d·n values or a few less.

    A hybrid is left out where its sparse columns would have one entry, and so equal ones, and a small dense
    dictionary where it would have fewer than 2k columns.
    """
    small = d * shape.n // shape.m
    recipes: dict[str, Mask | MaskRecipe | None] = {
        "expander": MaskRecipe("expander", shape.m, shape.n, d, 0).generate()
    }
    if _sparse_entries(shape, d) > 1:
        recipes["hybrid"] = MaskRecipe(f"hybrid{_PERCENT}", shape.m, shape.n, d, 0)
    if small >= 2 * shape.k:
        recipes[f"dense {small}"] = None
    found = {}
    for name, support in recipes.items():
        n = small if support is None else shape.n
        held = SparseAutoencoder(shape.m, n, shape.k, support)
        held.initialise(torch.Generator().manual_seed(0))
        found[name] = held
    return found


def _sparse_entries(shape: Shape, d: int) -> int:
    """Entries of a sparse column of the hybrid; 0 where there is no such hybrid."""
    try:
        return hybrid_parts(shape.m, shape.n, d, _PERCENT)[1]
    except UserError:
        return 0


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
        for name, autoencoder in decoders(shape, d).items():
            exact = deepcopy(autoencoder).double().dictionary()
            dictionary = autoencoder.to(device).dictionary()
            bias = torch.zeros(dictionary.n, device=device)
            make = partial(_encoding, dictionary, bias, k)
            width = dictionary.m if isinstance(dictionary, DenseDictionary) else d
            variants.append(GpuVariant(f"{name}, encoder", width, make))
            for count in [number for number in _ROUNDS if number < k] + [k]:
                block = -(-k // count)
                call = partial(block_omp, dictionary, k=k, block=block)
                error = partial(_checked, call, exact, h, k, block)
                variants.append(GpuVariant(f"{name}, {count}", width, partial(_pursuing, call), error))
    return variants


def _encoding(dictionary: Dictionary, bias: Tensor, k: int, following: Following) -> Call:
    return lambda: dictionary.correlate_topk(following(), bias, k)


def _pursuing(call: Callable[[Tensor], SparseCode], following: Following) -> Call:
    return lambda: call(following())


def _checked(call: Callable[[Tensor], SparseCode], exact: Dictionary, h: Tensor, k: int, block: int) -> float:
    found = call(h)
    return residual_error(SparseCode(found.index.cpu(), found.value.cpu()), exact, h.cpu(), k, block)
