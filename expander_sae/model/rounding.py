"""Columns on the levels of a precision: what a weights file of that precision can hold.

An entry is a level, a whole number, times the step of its column. Levels are those with the largest cosine to
the column among a few steps that are tried: many after training, some in it, where this is done at each step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expander_sae.model.precisions import Precision

MANY = tuple(0.75 * 1.06**power for power in range(48))
SOME = tuple(0.85 * 1.25**power for power in range(6))
"""Steps that are tried: the largest entry by the top level, divided by these; above 1 it is cut off.

Gaussian entries want about 1 in columns of a few, in those of hundreds 1.3 of 4 bits and 2.1 of 2."""
_PIECE = 1 << 20
"""Entries that are searched at a time."""


def nearest(scaled: Tensor, precision: Precision) -> Tensor:
    """The nearest level of each entry that is given in steps; what is beyond the last level gets that."""
    if precision.levels % 2:
        return scaled.round().clamp_(-precision.top, precision.top)
    return scaled.sub(1).div_(2).round_().mul_(2).add_(1).clamp_(-precision.top, precision.top)


def closest(
    values: Tensor, valid: Tensor | None, precision: Precision, shares: tuple[float, ...] = MANY
) -> tuple[Tensor, Tensor]:
    """(levels [n, w], step [n, 1]) of columns [n, w], as close to each as the precision allows.

    Levels maximise the cosine to the column among `shares`; a unit-norm column needs no more. The step is
    then the one of least squares, Σ v·q / Σ q·q, in bfloat16. `valid`, bool [n, w], marks entries that are no
    padding; padding has level 0, and so has a column of zeros where the precision has a 0.
    """
    pieces = values.split(max(1, _PIECE // values.shape[1]))
    kept = [None] * len(pieces) if valid is None else valid.split(len(pieces[0]))
    found = [_closest(*piece, precision, shares) for piece in zip(pieces, kept, strict=True)]
    return torch.cat([levels for levels, _ in found]), torch.cat([step for _, step in found])


def _closest(
    values: Tensor, valid: Tensor | None, precision: Precision, shares: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    values = _on(values, valid)
    largest = values.abs().amax(dim=1, keepdim=True)
    units = precision.top / torch.where(largest > 0, largest, torch.ones_like(largest))
    levels, best = torch.zeros_like(values), torch.full_like(largest, -1)
    for share in shares if precision.levels > 2 else shares[:1]:  # of ±1 the signs are all there is
        tried = _on(nearest(values * (units * share), precision), valid)
        norm = tried.norm(dim=1, keepdim=True)
        cosine = (values * tried).sum(dim=1, keepdim=True) / norm.clamp(min=1)
        better = cosine > best
        levels, best = torch.where(better, tried, levels), torch.where(better, cosine, best)
    squares = levels.square().sum(dim=1, keepdim=True)
    return levels, _step((values * levels).sum(dim=1, keepdim=True) / squares.clamp(min=1))


def one_step(values: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """(levels, step [1]) of values [n] that share a step: the largest magnitude gets the top level."""
    step = _step(values.abs().amax().reshape(1) / precision.top)
    return nearest(values / step, precision), step


def _step(step: Tensor) -> Tensor:
    """In bfloat16, which a file holds; 1 where there is nothing to scale."""
    step = step.to(torch.bfloat16).to(step.dtype)
    return torch.where(step > 0, step, torch.ones_like(step))


def _on(values: Tensor, valid: Tensor | None) -> Tensor:
    return values if valid is None else values * valid


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, valid: Tensor | None, precision: Precision) -> Tensor:
        if not precision.levels:
            return values.to(torch.bfloat16).to(values.dtype)
        levels, step = closest(values, valid, precision, SOME)
        return levels.mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None, None


def straight_through(values: Tensor, valid: Tensor | None, precision: Precision) -> Tensor:
    """Columns [n, w] on the levels of a training; the gradient passes the rounding as if there were none.

    The estimator of Bengio et al. (arXiv 1308.3432).
    """
    return _StraightThrough.apply(values, valid, precision)
