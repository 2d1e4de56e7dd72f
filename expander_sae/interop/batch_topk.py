"""BatchTopK: the positive scores of a whole batch compete for k places a token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expander_sae.model.dictionary import Dictionary, SparseCode

_FIRST = 4
"""Times k: how many scores of each token are looked at first."""


@torch.no_grad()
def batch_topk(encoder: Dictionary, centred: Tensor, bias: Tensor, k: float) -> SparseCode:
    """The ⌊k·B⌋ largest positive scores of centred activations [B, m], without a matrix [B, n].

    Each token's largest scores are candidates, twice as many until no token could have one more among
    the chosen. The code is as wide as the token with the most. (arXiv 2412.06410, §3)
    """
    count, width = int(k * len(centred)), min(encoder.n, _FIRST * max(1, math.ceil(k)))
    while True:
        found = encoder.correlate_topk(centred, bias, width)
        candidates = found.value.clamp(min=0).flatten()
        chosen = candidates.topk(min(count, len(candidates)))
        least = float(chosen.values[-1]) if len(chosen.values) else math.inf
        if width == encoder.n or not bool((found.value.amin(dim=1) > least).any()):
            break
        width = min(encoder.n, 2 * width)
    kept = torch.zeros_like(candidates, dtype=torch.bool)
    kept[chosen.indices] = chosen.values > 0
    order = kept.view_as(found.value).sort(dim=1, descending=True, stable=True)
    widest = max(1, int(order.values.sum(dim=1).max()))
    place, taken = order.indices[:, :widest], order.values[:, :widest]
    index = torch.where(taken, found.index.gather(1, place), torch.full_like(place, -1))
    return SparseCode(index, found.value.gather(1, place) * taken)
