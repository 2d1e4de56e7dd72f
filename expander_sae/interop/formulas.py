"""The formulas by which other libraries encode, each as `Weights` of ours.

All decode by ĥ = W x + b_dec. With z = Eᵀ(h − b_dec) + b_enc they keep

    topk        the k largest of z, of these the positive ones
    standard    x = ReLU(z)
    jumprelu    x_j = ReLU(z_j) where z_j > θ_j
    gated       x_j = ReLU(e^{r_j} u_j + b_mag,j) where u_j + b_gate,j > 0, with u = Eᵀ(h − b_dec)

A gate is a threshold: u_j > −b_gate,j is e^{r_j} u_j + b_mag,j > b_mag,j − e^{r_j} b_gate,j.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from expander_sae.interop.dense import Weights

Matrices = tuple[Tensor, Tensor]
"""(encoder, decoder), both [n, m]."""


def topk(matrices: Matrices, b_enc: Tensor, b_dec: Tensor, k: int) -> Weights:
    """The k largest scores, and of these the positive ones."""
    return Weights(*matrices, b_enc, b_dec, k, thresholds=torch.zeros_like(b_enc))


def jumprelu(matrices: Matrices, b_enc: Tensor, b_dec: Tensor, threshold: Tensor | None = None) -> Weights:
    """Positive scores above a threshold [n]; None: all positive ones, which is `standard`."""
    thresholds = torch.zeros_like(b_enc) if threshold is None else threshold.clamp(min=0)
    return Weights(*matrices, b_enc, b_dec, len(b_enc), thresholds=thresholds)


def gated(matrices: Matrices, gate: Tensor, magnitude: Tensor, log_scale: Tensor, b_dec: Tensor) -> Weights:
    """A gate [n] and a magnitude [n], whose encoder is e^{log_scale} times that of the gate."""
    scale = log_scale.double().exp()
    encoder = (matrices[0] * scale[:, None]).float()
    threshold = (magnitude - scale * gate).float()
    return jumprelu((encoder, matrices[1]), magnitude, b_dec, threshold)


def uncentred(weights: Weights) -> Weights:
    """The autoencoder whose scores are Eᵀh + b_enc: Eᵀ(h − b_dec) + (b_enc + Eᵀb_dec)."""
    shift = weights.encoder.double() @ weights.b_dec.double()
    return replace(weights, b_enc=(weights.b_enc + shift).float())
