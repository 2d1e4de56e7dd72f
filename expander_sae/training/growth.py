"""Growth: columns that may change their rows exchange some, and the optimiser follows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expander_sae.study.recipes import Recipe
from expander_sae.training.step import TrainingState

BATCHES = 8
"""How many batches of training tokens tell a gradient: of one, most columns have a few samples."""


def growth_share(step: int, steps: int, recipe: Recipe) -> float:
    """Of the values of a column, exchanged after this step: a cosine from `grow_share` to 0 at `grow_until`.

    0 where no exchange is due.
    """
    end = recipe.grow_until * steps
    if step >= end or step % recipe.grow_every:
        return 0.0
    return recipe.grow_share * 0.5 * (1 + math.cos(math.pi * step / end))


@torch.no_grad()
def grow(state: TrainingState, tokens: Tensor, share: float) -> None:
    """Exchange rows by the gradient on `tokens` [B, m]; a new row has no moments yet."""
    autoencoder = state.autoencoder
    code = autoencoder.encode(tokens)
    error = autoencoder.decode(code) - tokens
    moved = autoencoder.decoder.grow(share, code, error, tokens - autoencoder.b_dec)
    moments = state.optimiser.state.get(autoencoder.values, {})
    for name in ("exp_avg", "exp_avg_sq"):
        if name in moments:
            moments[name].copy_(moments[name].gather(1, moved.clamp(min=0)) * (moved >= 0))
