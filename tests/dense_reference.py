"""The published method on a dense mask, written without the library: W = colnorm(M ⊙ V) in full.

Autograd, `torch.optim.Adam` and a stable sort do the work; nothing here is fast and nothing
here is shared with `expander_sae`, so that agreement means something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def dense_mask(rows: np.ndarray, degrees: np.ndarray, m: int) -> Tensor:
    """float64 [m, n] with ones at the mask's entries."""
    mask = torch.zeros(m, len(rows), dtype=torch.float64)
    for column, degree in enumerate(degrees):
        for row in rows[column, :degree]:
            mask[int(row), column] = 1
    return mask


def to_dense(values: Tensor, rows: np.ndarray, degrees: np.ndarray, m: int) -> Tensor:
    """values [n, w] on a mask to a float64 matrix [m, n]."""
    out = torch.zeros(m, len(rows), dtype=torch.float64)
    for column, degree in enumerate(degrees):
        for place in range(int(degree)):
            out[int(rows[column, place]), column] = values[column, place].double()
    return out


def largest(z: Tensor, k: int) -> Tensor:
    """Indices [B, k] of the k largest entries; the lower index wins a tie."""
    return torch.sort(z, dim=1, descending=True, stable=True).indices[:, :k]


def forward(
    mask: Tensor,
    v: Tensor,
    encoder: Tensor | None,
    b_enc: Tensor,
    b_dec: Tensor,
    h: Tensor,
    k: int,
    index: Tensor | None = None,
    encoder_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(ĥ [B, m], x [B, n]) with W = colnorm(M ⊙ V), everything dense.

    encoder_mask: where the encoder may be nonzero, if that is not the decoder's mask.

    index [B, k]: take these features. They must be a top-k up to rounding: among scores that tie
    within 1e-10 any choice is right.
    """
    masked = mask * v
    w = masked / masked.norm(dim=0, keepdim=True)
    e = w if encoder is None else (mask if encoder_mask is None else encoder_mask) * encoder
    z = (h - b_dec) @ e + b_enc
    best = largest(z.detach(), k)
    if index is not None:
        assert all(len(set(row)) == k for row in index.tolist())
        chosen = z.detach().gather(1, index).sort(dim=1, descending=True).values
        torch.testing.assert_close(chosen, z.detach().gather(1, best), rtol=1e-10, atol=1e-10)
        best = index
    keep = torch.zeros_like(z).scatter(1, best, 1.0)
    x = z * keep
    return x @ w.T + b_dec, x


def train(
    mask: Tensor,
    v: Tensor,
    batches: Sequence[Tensor],
    k: int,
    d: int,
    resample_every: int,
    generator: torch.Generator,
    shares: tuple[float, float] = (1.0, 1.0),
    last_resampling: float = math.inf,
) -> dict[str, Tensor]:
    """The published loop on a tied encoder, biases at 0, one step a batch.

    shares: of the learning rate, for values and biases. last_resampling: the step after which none follows.
    """
    m, n = mask.shape
    v = v.clone().requires_grad_()
    b_enc = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    b_dec = torch.zeros(m, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam(
        [{"params": p} for p in (v, b_enc, b_dec)], lr=3e-4, betas=(0.9, 0.999), eps=1e-8, foreach=False
    )
    fired = torch.zeros(n)
    steps = len(batches)
    for step, h in enumerate(batches, start=1):
        rate = 1e-5 + (3e-4 - 1e-5) * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        for group, share in zip(optimiser.param_groups, (shares[0], shares[1], shares[1]), strict=True):
            group["lr"] = rate * share
        optimiser.zero_grad()
        rebuilt, _ = forward(mask, v, None, b_enc, b_dec, h, k)
        ((h - rebuilt) ** 2).sum(1).mean().backward()
        total = math.sqrt(sum(float((p.grad**2).sum()) for p in (v, b_enc, b_dec)))
        for p in (v, b_enc, b_dec):
            p.grad *= min(1.0, 1.0 / (total + 1e-6))
        optimiser.step()
        with torch.no_grad():
            rebuilt, x = forward(mask, v, None, b_enc, b_dec, h, k)
            fired += (x.abs() > 1e-6).sum(0)
            if step % resample_every == 0 and step <= last_resampling:
                dead = [j for j in range(n) if fired[j] < 5]
                fired.zero_()
                if dead and len(dead) <= 0.8 * n:
                    error = h - rebuilt
                    share = (error**2).sum(1)
                    drawn = torch.multinomial(share, len(dead), replacement=True, generator=generator)
                    for j, sample in zip(dead, drawn.tolist(), strict=True):
                        v[:, j] = mask[:, j] * error[sample] / math.sqrt(d)
                        b_enc[j] = 0
    return {"v": v.detach(), "b_enc": b_enc.detach(), "b_dec": b_dec.detach()}
