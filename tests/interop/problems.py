"""Small autoencoders with trained-looking weights, and activations that they meet."""

from __future__ import annotations

from typing import Any

import torch

from expander_sae import MaskRecipe, SparseAutoencoder
from expander_sae.rng import torch_generator

M, N, K = 16, 48, 4


def small(family: str = "expander", encoder: str = "tied", **about: Any) -> SparseAutoencoder:
    """An autoencoder with non-zero biases; b_enc is so low that some kept values are negative."""
    mask = None if family == "dense" else MaskRecipe(family, M, N, 5, seed=1).generate()
    autoencoder = SparseAutoencoder(M, N, K, mask, encoder, "torch")
    autoencoder.initialise(torch_generator(3, f"interop {family} {encoder}"))
    with torch.no_grad():
        autoencoder.b_enc.normal_(generator=torch_generator(4, "b_enc")).mul_(0.3).sub_(2.5)
        autoencoder.b_dec.normal_(generator=torch_generator(5, "b_dec"))
        if autoencoder.encoder is not None:
            autoencoder.encoder.mul_(1.5)
    autoencoder.about = about
    return autoencoder


def activations(tokens: int = 300, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(tokens, M, generator=torch_generator(6, "activations")) + 0.5


def reference(
    autoencoder: SparseAutoencoder, h: torch.Tensor, relu: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ĥ, which tokens have k positive values) by dense float64 matrices, as other libraries compute."""
    everything = torch.arange(autoencoder.n)
    w = autoencoder.dictionary().columns(everything).double()
    e = autoencoder._encoder_on(autoencoder.dictionary()).columns(everything).double()
    pre = (h.double() - autoencoder.b_dec.double()) @ e.T + autoencoder.b_enc.double()
    value, index = pre.topk(autoencoder.k, dim=1)
    code = torch.zeros_like(pre).scatter(1, index, value.relu() if relu else value)
    return code @ w + autoencoder.b_dec.double(), (value > 0).all(dim=1)
