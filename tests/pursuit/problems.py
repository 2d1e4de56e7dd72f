"""Small dictionaries and planted codes for the tests of thresholding pursuits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary

KINDS = ["torch", "numba", "dense"]


def dictionary_of(kind: str, values: Tensor, rows: Tensor, m: int) -> Dictionary:
    if kind == "numba":
        pytest.importorskip("numba", reason="the numba extra is not installed")
    sparse = SparseDictionary(values, rows, m, "torch" if kind == "dense" else kind)
    return DenseDictionary(sparse.columns(torch.arange(sparse.n))) if kind == "dense" else sparse


def random_columns(m: int, n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit columns of d entries: values [n, d] float64, rows int32 [n, d]."""
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.permutation(m)[:d] for _ in range(n)]).astype(np.int32)
    values = torch.from_numpy(generator.standard_normal((n, d)))
    return values / values.norm(dim=1, keepdim=True), torch.from_numpy(rows)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def planted(
    dictionary: Dictionary, batch: int, k: int, seed: int, positive: bool
) -> tuple[SparseCode, Tensor]:
    """Codes with entries of size at least one, and what they synthesise."""
    generator = np.random.default_rng(seed)
    index = torch.from_numpy(np.stack([generator.permutation(dictionary.n)[:k] for _ in range(batch)]))
    value = 1 + torch.from_numpy(generator.random((batch, k)))
    if not positive:
        value *= torch.from_numpy(generator.choice([-1.0, 1.0], (batch, k)))
    code = SparseCode(index, value.to(dictionary.dtype))
    return code, dictionary.synthesize(code)


def dense_code(code: SparseCode, n: int) -> np.ndarray:
    """[B, n], entries added up, so that a column mentioned twice would show."""
    padded = torch.zeros(code.index.shape[0], n + 1, dtype=code.value.dtype)
    return padded.scatter_add_(1, code.index + 1, code.value)[:, 1:].numpy()


def threshold(x: np.ndarray, k: int, selection: str) -> np.ndarray:
    """The k largest entries of a vector (positive ones, or by size), the rest 0."""
    score = x if selection == "signed" else np.abs(x)
    chosen = [j for j in np.argsort(-score, kind="stable")[:k] if score[j] > 0]
    out = np.zeros_like(x)
    out[chosen] = x[chosen]
    return out
