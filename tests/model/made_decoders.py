"""Decoders made of others, at random and trained, and their matrices written out in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expander_sae import SparseAutoencoder, Trainer
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.columns import Entries
from expander_sae.model.dictionary import SparseCode
from expander_sae.model.grown import Grown
from expander_sae.model.hybrid import Hybrid
from expander_sae.model.spectral import Spectral
from expander_sae.rng import torch_generator
from tests.training.small_data import few_directions

M, N, D, K = 24, 96, 6, 5
KINDS = ["hybrid", "hybrid30", "spectral18", "grown"]
BACKENDS = ["torch", "numba"]


def made(support: str, seed: int = 0, backend: str = "torch") -> SparseAutoencoder:
    """At random in float64, nothing of it at its start; a spectral one in components of any direction."""
    recipe = MaskRecipe(support, M, N, D, seed)
    sae = SparseAutoencoder(M, N, K, recipe, backend=backend, dtype=torch.float64)
    generator = torch_generator(seed, "decoders")
    sae.initialise(generator)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        if isinstance(sae.decoder, Spectral):
            rank = sae.decoder.rank
            rotation = torch.linalg.qr(torch.randn(M, M, generator=generator, dtype=torch.float64))[0]
            sae.decoder.fill(torch.linspace(9, 0, rank), rotation[:rank])
        if isinstance(sae.decoder, Grown):
            sae.decoder.grow(0.5, sae.encode(batch(seed)), batch(seed + 1), batch(seed + 2))
            sae.values.add_(0.1 * torch.randn(N, D, generator=generator, dtype=torch.float64))
    return sae


def matrix(sae: SparseAutoencoder) -> Tensor:
    """Wᵀ [n, m] from the parameters alone, written as the definitions are."""
    decoder = sae.decoder
    if isinstance(decoder, Hybrid):
        tail = decoder._parts[1].mask
        written = torch.zeros(tail.recipe.n, M, dtype=torch.float64)
        for column, rows in enumerate(tail.rows):
            written[column, rows] = sae.values[column].detach()
        columns = torch.cat([decoder.core.detach(), written])
    else:
        assert isinstance(decoder, Entries) and decoder.rows is not None
        spectral = isinstance(decoder, Spectral)
        columns = torch.zeros(N, decoder.rank if spectral else M, dtype=torch.float64)
        for column, rows in enumerate(decoder.rows.tolist()):
            columns[column, rows] = sae.values[column].detach()
        columns = columns @ decoder.basis.detach() if spectral else columns
    return columns / columns.norm(dim=1, keepdim=True)


def batch(seed: int, size: int = 7) -> Tensor:
    return torch.randn(size, M, generator=torch_generator(seed, "batch"), dtype=torch.float64)


def written(code: SparseCode) -> Tensor:
    """The code as a matrix [B, n]."""
    out = torch.zeros(len(code.index), N + 1, dtype=code.value.dtype)
    return out.scatter_add_(1, code.index + 1, code.value)[:, 1:]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def trained(support: str, **options: Any) -> SparseAutoencoder:
    settings_ = {"n": N, "d": D, "k": K, "device": "cpu", "resample_every": 10, "resample_max_dead": 1.0}
    settings_ |= {"grow_every": 7} if support == "grown" else {}
    return Trainer(few_directions(torch.float32), support=support, **settings_ | options).fit(40)
