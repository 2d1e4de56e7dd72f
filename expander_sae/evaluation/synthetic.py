"""Recovery of planted codes (arXiv 2607.01799): the decoder is ±1/√d on a random mask.

A trial plants a uniform support of k features with N(0, 1) coefficients x and observes

    h = Wx + σ · ‖Wx‖/√m · N(0, I),

and the pursuit takes k steps; the published one is OMP with absolute selection. The trial counts
as recovered if the support is exactly the planted one. Masks, signs and trials have streams of
their own; the first trials of a cell are the same however many are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.dictionary import Dictionary, SparseCode, SparseDictionary
from expander_sae.pursuit.omp import omp
from expander_sae.rng import torch_generator

Pursuit = Callable[[Dictionary, Tensor, int, str], SparseCode]
_CHUNK = 100
"""Trials drawn at a time, whatever the number asked for."""


@dataclass(frozen=True)
class Cell:
    """One cell of the table: a dictionary's shape, the planted sparsity and the relative noise σ."""

    m: int
    n: int
    d: int
    k: int
    sigma: float

    def validate(self) -> None:
        """Check that a trial can have such a code."""
        if not 1 <= self.k <= self.n:
            raise UserError(f"synthetic k: found {self.k}, expected 1 to n = {self.n}")
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise UserError(f"synthetic sigma: found {self.sigma}, expected a number of at least 0")


@dataclass(frozen=True, eq=False)
class Recovery:
    """Trials of a cell, [masks, trials]: recovered bool, the others float64.

    The overlap is |S ∩ Ŝ|/k of the planted and the found support, the code's error ‖x − x̂‖/‖x‖, and that of
    the reconstruction ‖Wx − Wx̂‖/‖Wx‖, against the noiseless signal.
    """

    recovered: np.ndarray
    overlap: np.ndarray
    code_error: np.ndarray
    reconstruction_error: np.ndarray

    @property
    def rate(self) -> float:
        """Share of trials whose support was recovered."""
        return float(self.recovered.mean())


@lru_cache(maxsize=8)
def signed_dictionary(
    m: int, n: int, d: int, seed: int, backend: str = "auto", device: str = "cpu"
) -> SparseDictionary:
    """W = ±1/√d, signs uniform, on the `expander` mask of this seed; float64, unit columns."""
    mask = MaskRecipe("expander", m, n, d, seed).generate()
    generator = torch_generator(seed, f"synthetic/signs/{m}/{n}/{d}")
    signs = torch.randint(0, 2, (n, d), generator=generator, dtype=torch.float64) * 2 - 1
    rows = torch.from_numpy(mask.rows).to(device)
    return SparseDictionary((signs / math.sqrt(d)).to(device), rows, m, backend)


def planted_trials(
    dictionary: SparseDictionary, cell: Cell, trials: int, seed: int
) -> Iterator[tuple[SparseCode, Tensor, Tensor]]:
    """(code, Wx, h) of the trials, at most 100 at a time."""
    purpose = f"synthetic/trials/{cell.m}/{cell.n}/{cell.d}/{cell.k}/{cell.sigma!r}"
    generator = torch_generator(seed, purpose)
    for start in range(0, trials, _CHUNK):
        kept, wide = min(_CHUNK, trials - start), torch.float64
        keys = torch.rand(_CHUNK, cell.n, generator=generator, dtype=wide)
        value = torch.randn(_CHUNK, cell.k, generator=generator, dtype=wide)[:kept]
        noise = torch.randn(_CHUNK, cell.m, generator=generator, dtype=wide)[:kept]
        index = keys[:kept].topk(cell.k, dim=1).indices
        code = SparseCode(index.to(dictionary.device), value.to(dictionary.device))
        clean = dictionary.synthesize(code)
        scale = cell.sigma / math.sqrt(cell.m) * clean.norm(dim=1, keepdim=True)
        yield code, clean, clean + scale * noise.to(dictionary.device)


def compare(true: SparseCode, found: SparseCode) -> tuple[Tensor, Tensor, Tensor]:
    """(support recovered bool [B], |S ∩ Ŝ|/|S| [B], ‖x − x̂‖/‖x‖ [B]); no column may stand twice in a
    code."""
    same = (true.index[:, :, None] == found.index[:, None, :]) & (true.index >= 0)[:, :, None]
    found_there = same.any(dim=2) | (true.index < 0)
    wanted = same.any(dim=1) | (found.index < 0)
    at_true = (same * found.value[:, None, :]).sum(dim=2)
    squared = (true.value - at_true).square().sum(1) + found.value.masked_fill(wanted, 0).square().sum(1)
    overlap = same.any(dim=2).sum(dim=1) / (true.index >= 0).sum(dim=1)
    return found_there.all(1) & wanted.all(1), overlap, squared.sqrt() / true.value.norm(dim=1)


@torch.no_grad()
def recovery(
    cell: Cell,
    seeds: Sequence[int],
    trials: int,
    pursuit: Pursuit = omp,
    selection: str = "absolute",
    backend: str = "auto",
    device: str = "cpu",
) -> Recovery:
    """Run `trials` trials on the mask of each seed."""
    cell.validate()
    if trials < 1 or not seeds or len(set(seeds)) != len(seeds):
        raise UserError(
            f"synthetic: found {trials} trials and seeds {list(seeds)}, expected at least one, no seed twice"
        )
    results = []
    for seed in seeds:
        dictionary = signed_dictionary(cell.m, cell.n, cell.d, seed, backend, device)
        parts = []
        for code, clean, observed in planted_trials(dictionary, cell, trials, seed):
            found = pursuit(dictionary, observed, cell.k, selection)
            recovered, overlap, code_error = compare(code, found)
            error = (dictionary.synthesize(found) - clean).norm(dim=1) / clean.norm(dim=1)
            parts.append(torch.stack([recovered.double(), overlap.double(), code_error, error]).cpu())
        results.append(torch.cat(parts, dim=1).numpy())
    recovered, *others = np.stack(results, axis=1)
    return Recovery(recovered > 0, *others)
