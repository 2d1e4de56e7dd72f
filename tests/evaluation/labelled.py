"""Labelled tokens in documents, and codes that are planted for them or drawn at random."""

from __future__ import annotations

import numpy as np
import torch

from expander_sae.evaluation.label_families import Documents, Family, family_of
from expander_sae.model.dictionary import SparseCode

DOCUMENTS, LENGTH, LABELS = 20, 25, 4
TOKENS = DOCUMENTS * LENGTH


def labelled_tokens(seed: int) -> tuple[Family, Documents]:
    """500 tokens in twenty documents; two in five have one of four labels."""
    generator = np.random.default_rng([1, seed])
    label = np.where(generator.random(TOKENS) < 0.4, generator.integers(0, LABELS, TOKENS), -1)
    documents = Documents.of(np.repeat(generator.permutation(1000)[:DOCUMENTS], LENGTH))
    family = family_of("user", np.array([None if one < 0 else f"label {one}" for one in label]), documents)
    assert (family.label == label).all() and len(family.names) == LABELS
    return family, documents


def random_code(seed: int, n: int, k: int) -> SparseCode:
    """k features a token, at random, with empty places, zeros, and values of both signs."""
    generator = np.random.default_rng([2, seed])
    index = np.argsort(generator.random((TOKENS, n)), axis=1)[:, :k]
    index[generator.random(index.shape) < 0.1] = -1
    value = generator.standard_normal(index.shape) * (generator.random(index.shape) < 0.9) * (index >= 0)
    return SparseCode(torch.from_numpy(index), torch.from_numpy(value))


def planted_code(family: Family, n: int, k: int, seed: int) -> SparseCode:
    """Feature j fires exactly on label j; the other places of a token are of other features at random."""
    labels = len(family.names)
    noise = random_code(seed, n - labels, k - 1)
    index = torch.where(noise.index >= 0, noise.index + labels, -1)
    value = np.random.default_rng([3, seed]).uniform(1, 2, TOKENS) * (family.label >= 0)
    first = torch.from_numpy(family.label)[:, None]
    return SparseCode(
        torch.cat([first, index], 1), torch.cat([torch.from_numpy(value)[:, None], noise.value], 1)
    )


def noisy_code(family: Family, seed: int) -> SparseCode:
    """Features 3j, 3j + 1 and 3j + 2 fire on label j, each on two in five of its tokens, and a few others."""
    generator = np.random.default_rng([4, seed])
    labels = len(family.names)
    fires = generator.random((TOKENS, 3 * labels)) < np.where(
        family.label[:, None] == np.arange(3 * labels) // 3, 0.4, 0.05
    )
    index = np.where(fires, np.arange(3 * labels), -1)
    value = generator.uniform(1, 2, index.shape) * fires
    return SparseCode(torch.from_numpy(index), torch.from_numpy(value))
