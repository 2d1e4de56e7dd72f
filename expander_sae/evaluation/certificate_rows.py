"""Certificates of a trained decoder, and what is left of them on the supports that occur, as rows."""

from __future__ import annotations

import numpy as np
import torch

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode, SparseDictionary
from expander_sae.theory import certificates

SUPPORTS = 256
"""How many supports are looked at, of tokens with k active features evenly spread over the test set."""


def evenly(total: int, count: int) -> np.ndarray:
    """`count` of the places 0 … total - 1, as evenly spread as can be, ascending; all where there are fewer.

    Tokens that stand side by side are of one document, and say less than as many of all documents.
    """
    count = min(total, count)
    return np.arange(count) * total // max(count, 1)


def column_values(autoencoder: SparseAutoencoder, seed: int) -> dict[str, float]:
    """What mask and columns guarantee; of a dense decoder the cumulative coherence alone.

    The expansion deficits are lower bounds, which can refute a certificate and never prove it.
    """
    dictionary, k = autoencoder.dictionary(), autoencoder.k
    values: dict[str, float] = {}
    if k < autoencoder.n:
        values["cumulative_coherence_k"] = certificates.cumulative_coherence(dictionary, [k])[k]
    mask = autoencoder.mask
    if mask is None or not isinstance(dictionary, SparseDictionary):
        return values
    degrees = None if mask.regular else mask.degrees
    beta = float(certificates.flatness(dictionary.values.detach().cpu(), degrees).max())
    values["flatness"] = beta
    if 2 * k <= autoencoder.n:
        both = certificates.expansion_deficit(mask, 2 * k, seed).value
        values |= {"expansion_deficit_2k": both, "identifiability": certificates.identifiability(beta, both)}
    if k + 1 <= autoencoder.n:
        one = certificates.expansion_deficit(mask, k + 1, seed).value
        values |= {"expansion_deficit_k1": one, "omp_condition": certificates.omp_condition(beta, one, k)}
    return values


def support_values(autoencoder: SparseAutoencoder, code: SparseCode) -> dict[str, float]:
    """Smallest singular values and recovery margins of the columns that fire together.

    A median over supports of which half are dependent is −∞, and makes no row.
    """
    full = (code.value != 0).all(dim=1).nonzero()[:, 0]
    if not len(full):
        return {}
    full = full[torch.from_numpy(evenly(len(full), SUPPORTS))]
    dictionary = autoencoder.dictionary()
    index = code.index[full].to(dictionary.device)
    smallest = certificates.restricted_singular_values(dictionary, index)[:, 0].cpu().numpy()
    margins = certificates.recovery_margin(dictionary, index).numpy()
    return {
        "restricted_sigma_min": float(np.median(smallest)),
        "restricted_sigma_min_p05": float(np.quantile(smallest, 0.05)),
        "recovery_margin_median": float(np.median(margins)),
        "recovery_margin_positive": float((margins > 0).mean()),
    }
