"""Codes of encoders that select by thresholds: as many features a token as exceed theirs.

    x_j = z_j where z_j > θ_j, and of these the k whose z_j − θ_j is largest

θ = 0 is a ReLU. Codes are as wide as the token with the most features: O(B·widest) in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae.model.dictionary import Dictionary, SparseCode

_FIRST = 128
"""Features a token that are looked at first; twice as many each time that all of a token's exceed."""


@torch.no_grad()
def selected(
    encoder: Dictionary, centred: Tensor, bias: Tensor, thresholds: Tensor | None, k: int
) -> SparseCode:
    """What an encoder keeps of its scores of centred activations [B, m]: the k largest, or see above."""
    if thresholds is None:
        return encoder.correlate_topk(centred, bias, k)
    return _above(encoder, centred, bias, thresholds, k)


def _above(encoder: Dictionary, centred: Tensor, bias: Tensor, thresholds: Tensor, most: int) -> SparseCode:
    """By falling z − θ; empty places come last."""
    margins = bias - thresholds
    width = min(most, _FIRST)
    found = encoder.correlate_topk(centred, margins, width)
    while width < most and bool((found.value > 0).all(dim=1).any()):
        width = min(most, 2 * width)
        found = encoder.correlate_topk(centred, margins, width)
    margin, order = found.value.sort(dim=1, descending=True, stable=True)
    index, kept = found.index.gather(1, order), margin > 0
    # Of one place at least: kernels are given no code without any.
    widest = max(1, int(kept.sum(dim=1).max())) if len(kept) else 1
    index, margin, kept = index[:, :widest], margin[:, :widest], kept[:, :widest]
    value = torch.where(kept, margin + thresholds[index], torch.zeros_like(margin))
    return SparseCode(torch.where(kept, index, torch.full_like(index, -1)), value)
