"""Implementations that the project's own are measured against, written plainly and fairly.

`dense_emulation` is what published code does for masked columns: an [m, n] parameter times a
mask, normalised, and two matrix products. `batched_qr` is orthogonal matching pursuit with an
orthonormal basis Q [B, m, k] grown by modified Gram-Schmidt.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class DenseEmulation(nn.Module):
    """W = colnorm(M ⊙ V) with V, M [m, n]; tied TopK autoencoder."""

    def __init__(self, columns: Tensor, k: int) -> None:
        super().__init__()
        self.k = k
        self.mask = (columns.t() != 0).to(columns.dtype).contiguous()
        self.v = nn.Parameter(columns.t().contiguous())
        self.b_enc = nn.Parameter(torch.zeros(columns.shape[0]))
        self.b_dec = nn.Parameter(torch.zeros(columns.shape[1]))

    def weight(self) -> Tensor:
        masked = self.mask * self.v
        return masked / masked.norm(dim=0, keepdim=True).clamp_min(1e-12)

    def encode(self, h: Tensor, weight: Tensor) -> Tensor:
        z = (h - self.b_dec) @ weight + self.b_enc
        value, index = z.topk(self.k, dim=1)
        return torch.zeros_like(z).scatter(1, index, value)

    def forward(self, h: Tensor) -> Tensor:
        weight = self.weight()
        return self.encode(h, weight) @ weight.t() + self.b_dec


def emulated_step(model: DenseEmulation, optimiser: torch.optim.Optimizer, h: Tensor) -> None:
    """One update: forward, backward, clip, Adam."""
    optimiser.zero_grad(set_to_none=True)
    (model(h) - h).square().sum(dim=1).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def gathered_correlation(values: Tensor, rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Wᵀr by gathering r into [B, n, d]: the plain way on sparse columns."""
    flat = rows.long().flatten()

    def correlate(residual: Tensor) -> Tensor:
        return torch.einsum("bnd,nd->bn", residual[:, flat].view(-1, *rows.shape), values)

    return correlate


def batched_qr(
    columns: Tensor, correlate: Callable[[Tensor], Tensor], h: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Signed orthogonal matching pursuit of h [B, m] on unit columns [n, m]: (index, value) [B, k]."""
    batch, m = h.shape
    q = h.new_zeros(batch, m, k)
    r = h.new_zeros(batch, k, k)
    taken = torch.zeros(batch, columns.shape[0], dtype=torch.bool)
    residual, index = h.clone(), []
    for step in range(k):
        picked = correlate(residual).masked_fill(taken, -torch.inf).argmax(dim=1)
        taken[torch.arange(batch), picked] = True
        index.append(picked)
        new = columns[picked]
        basis = q[:, :, :step]
        along = torch.bmm(new[:, None], basis)[:, 0]
        new = new - torch.bmm(basis, along[:, :, None])[:, :, 0]
        length = new.norm(dim=1, keepdim=True).clamp_min(1e-6)
        new = new / length
        q[:, :, step] = new
        r[:, :step, step], r[:, step, step] = along, length[:, 0]
        residual = residual - (residual * new).sum(dim=1, keepdim=True) * new
    right = torch.bmm(h[:, None], q)[:, 0]
    value = torch.linalg.solve_triangular(r, right[:, :, None], upper=True)[:, :, 0]
    return torch.stack(index, dim=1), value
