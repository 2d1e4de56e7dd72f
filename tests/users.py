"""Activations of a user, and a small training on them."""

from __future__ import annotations

from typing import Any

import torch

from expander_sae import SparseAutoencoder, Trainer
from expander_sae.rng import torch_generator

M, N, TOKENS = 12, 48, 400
SMALL: dict[str, Any] = {"batch_size": 16, "resample_every": 20}


def made_up_activations() -> torch.Tensor:
    """[TOKENS, M]; every fiftieth token is massive."""
    h = 30 * torch.randn(TOKENS, M, generator=torch_generator(0, "api")) + 5
    h[::50] *= 500
    return h


def trainer(activations: torch.Tensor, **changes: Any) -> Trainer:
    return Trainer(activations, **({"n": N, "d": 4, "k": 3} | SMALL | changes))


def parameters(autoencoder: SparseAutoencoder) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in autoencoder.parameters()]
