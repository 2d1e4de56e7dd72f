"""How many features a pursuit takes, where an autoencoder does not say it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.arrays import as_tensor

_ROWS = 512


@torch.no_grad()
def budgeted(
    autoencoder: SparseAutoencoder, activations: Tensor | np.ndarray, rows: np.ndarray | None = None
) -> SparseAutoencoder:
    """The autoencoder for pursuits: with a k that is as many features as its encoder takes.

    One that is not told by its k is copied without its parameters, and k is the mean number of features that
    the encoder keeps on these `rows` of activations [N, m] (None: all), to the nearest whole number.
    """
    if not autoencoder.counts_vary:
        return autoencoder
    tensor = as_tensor(activations)
    chosen = torch.arange(len(tensor)) if rows is None else torch.from_numpy(rows)
    active = sum(
        int((autoencoder.encode(tensor[part.to(tensor.device)]).value != 0).sum())
        for part in chosen.split(_ROWS)
    )
    found = copy.copy(autoencoder)
    found.k = max(1, round(active / len(chosen)))
    return found
