"""Clip and Adam on the columns of a step's codes alone, a recipe of its own (`lazy`).

Other columns have no gradient. The published update moves them too, by what is left of their moments, and
lets these decay. Here a column's moments are means over the steps in which it took part, and so is their
correction for having started at 0: t below is the number of these steps, of each column j on its own.

    m_j ← β₁ m_j + (1 - β₁) g_j,    v_j ← β₂ v_j + (1 - β₂) g_j²,
    w_j ← w_j - rate · m_j / (1 - β₁ᵗ) / (√(v_j / (1 - β₂ᵗ)) + ε)

A column and its bias b_enc are visited together. Where all columns take part in all steps it is Adam.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.training.data_parallel import Processes

VISITS = "visits"
"""What Adam's state of a parameter holds beside its moments: int64 [n], the steps of each column."""


def begin(optimiser: torch.optim.Adam, autoencoder: SparseAutoencoder) -> None:
    """Visits of 0 beside the moments of what has a row for each feature."""
    for parameter in _by_feature(autoencoder):
        if (held := optimiser.state.get(parameter)) is not None:
            held[VISITS] = torch.zeros(len(parameter), dtype=torch.int64, device=parameter.device)


@torch.no_grad()
def update(
    autoencoder: SparseAutoencoder,
    optimiser: torch.optim.Adam,
    index: Tensor,
    clip_norm: float,
    processes: Processes,
) -> None:
    """One update by every `.grad`, of codes with these features, int64 [B, k]; −1 is none of them."""
    touched = _touched(index, autoencoder.n, processes)
    groups = {id(each): group for group in optimiser.param_groups for each in group["params"]}
    visited = {id(each): each for each in _by_feature(autoencoder) if each.grad is not None}
    rows: dict[int, Tensor] = {}
    for key, parameter in visited.items():
        assert parameter.grad is not None
        rows[key] = parameter.grad[touched]
        parameter.grad = None
    others = [each.grad for each in autoencoder.parameters() if each.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in (*rows.values(), *others)]).norm()
    share = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in (*rows.values(), *others):
        gradient.mul_(share)
    for key, parameter in visited.items():
        _move(parameter, rows[key], touched, optimiser.state[parameter], groups[key])
    optimiser.step()


def _move(
    parameter: Tensor, gradient: Tensor, touched: Tensor, held: dict[str, Tensor], group: dict[str, Any]
) -> None:
    """Adam on rows of a parameter."""
    (first, second), eps = group["betas"], group["eps"]
    held[VISITS][touched] += 1
    visits = held[VISITS][touched].to(torch.float64).view(-1, *[1] * (parameter.ndim - 1))
    mean = held["exp_avg"][touched].lerp_(gradient, 1 - first)
    square = held["exp_avg_sq"][touched].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    held["exp_avg"][touched], held["exp_avg_sq"][touched] = mean, square
    root = (1 - second**visits).sqrt().to(parameter.dtype)
    rate = (group["lr"] / (1 - first**visits)).to(parameter.dtype)
    parameter[touched] -= rate * mean / (square.sqrt_().div_(root).add_(eps))


def _by_feature(autoencoder: SparseAutoencoder) -> list[Tensor]:
    """The parameters that have a row for each feature."""
    names = {"b_enc", *autoencoder.column_sizes()}
    named = autoencoder.named_parameters()
    return [each for name, each in named if name in names and len(each) == autoencoder.n]


def _touched(index: Tensor, n: int, processes: Processes) -> Tensor:
    """int64: the features of the codes of all processes, each once and in order."""
    found = index.flatten().unique()
    found = found[found >= 0]
    if processes.count == 1:
        return found
    taken = torch.zeros(n, dtype=torch.int64, device=index.device)
    taken[found] = 1
    return processes.total(taken).nonzero().flatten()
