"""Sparse columns whose rows are learned: some are given up and others taken while training goes on.

The rule is that of Evci et al., Rigging the lottery (arXiv 1911.11134), column by column.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from expander_sae.kernels import dense
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model.dictionary import SparseCode
from expander_sae.model.sparse import Places, Sparse


class Grown(Sparse):
    """values [n, d] on rows that begin as an expander's and are stored with the weights.

    Before training, a file or a checkpoint tells the rows, they are those of the seed.
    """

    grows = True

    def __init__(self, support: Mask | MaskRecipe, *options: Any, **keywords: Any) -> None:
        super().__init__(support if isinstance(support, Mask) else _first(support), *options, **keywords)

    def _take(self, rows: Tensor) -> None:
        """Stand on rows [n, d], ascending in each column."""
        self.mask = replace(self.mask, rows=rows.to(torch.int32).cpu().numpy())
        # Not written in place: backends remember what they derived from the old ones.
        self.places = Places(self.mask).to(self.values.device)

    def state(self) -> dict[str, Tensor]:
        return {"rows": self.rows}

    def resume(self, state: dict[str, Tensor]) -> None:
        self._take(state["rows"])

    @torch.no_grad()
    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        """A column takes the d rows where its sample is largest."""
        largest = residual[drawn].abs().sort(dim=1, descending=True, stable=True).indices[:, : self.d]
        rows = self.rows.clone()
        rows[features] = largest.sort(dim=1).values.to(rows.dtype)
        self._take(rows)
        return super().aim(features, residual, drawn)

    @torch.no_grad()
    def grow(self, share: float, code: SparseCode, error: Tensor, centred: Tensor) -> Tensor:
        """Exchange in each column the ⌊share·d⌋ smallest values for the rows with the largest gradients.

        The gradient is that of a tied autoencoder's loss in all m entries of a column; panels of columns are
        computed that have as many entries as the values. A row that is taken begins with the value 0. Only
        rows with a gradient are, so that a column that did not fire stays.

        Args:
            share: of the values of a column, that are exchanged.
            code: of B samples.
            error: [B, m], ĥ − h, at any scale.
            centred: [B, m], h − b_dec.

        Returns:
            int64 [n, d]: the place that the value in each place had before; −1 where it is new.
        """
        count = int(share * self.d)
        moved = torch.arange(self.d, device=self.values.device).repeat(self.n, 1)
        if count < 1:
            return moved
        slope = self.dictionary().correlate_at(error, code.index)
        rows, panel = self.rows.long(), max(1, self.n * self.d // self.m)
        for start in range(0, self.n, panel):
            part = slice(start, min(start + panel, self.n))
            gradient = _gradient(part, code, slope, error, centred).abs_()
            rows[part], moved[part] = _exchanged(rows[part], self.values[part].abs(), gradient, count)
        self.values.copy_(self.values.gather(1, moved.clamp(min=0)) * (moved >= 0))
        self._take(rows)
        return moved


def _first(recipe: MaskRecipe) -> Mask:
    """The rows of an expander, as those of a learned mask."""
    drawn = replace(recipe, family="expander").generate()
    return Mask(recipe, drawn.rows, drawn.degrees)


def _gradient(part: slice, code: SparseCode, slope: Tensor, error: Tensor, centred: Tensor) -> Tensor:
    """[P, m]: of the columns of a panel, through decoder and encoder."""
    size = part.stop - part.start
    inside = (code.index >= part.start) & (code.index < part.stop)
    own = torch.where(inside, code.index - part.start, -1)
    value, slope = (kept.masked_fill(~inside, 0) for kept in (code.value, slope))
    gradient = dense.scatter_outer(size, own, value, error)
    return gradient.add_(dense.scatter_outer(size, own, slope, centred))


def _exchanged(rows: Tensor, sizes: Tensor, gradient: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(rows [P, d], places [P, d] as of `grow`) after `count` exchanges a column, by the gradient [P, m]."""
    order = sizes.sort(dim=1, stable=True).indices
    gradient.scatter_(1, rows, 0)
    best, taken = gradient.sort(dim=1, descending=True, stable=True)
    given, taken, real = order[:, :count], taken[:, :count], best[:, :count] > 0
    places = torch.arange(rows.shape[1], device=rows.device).repeat(len(rows), 1)
    places.scatter_(1, given, torch.where(real, -1, given))
    rows = rows.scatter(1, given, torch.where(real, taken, rows.gather(1, given)))
    rows, again = rows.sort(dim=1)
    return rows, places.gather(1, again)
