"""Sparse columns that training may not move, or not far: controls of what training is good for.

The frozen and the softly frozen kinds of "Sanity checks for sparse autoencoders" (arXiv 2602.14111), on the
mask of an expander. What is frozen are the columns; both biases are trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expander_sae.model.columns import Columns
from expander_sae.model.sparse import Sparse

LEAST_COSINE = 0.8
"""Between a softly frozen column and where it started (arXiv 2602.14111)."""


class _Held(Sparse):
    """Its encoders are free ones, whatever becomes of the decoder."""

    apart = Sparse


class FrozenDecoder(_Held):
    """Columns that stay as they are drawn. No feature is re-aimed, since its column could not follow."""

    def __init__(self, *support: Any, **keywords: Any) -> None:
        super().__init__(*support, **keywords)
        self.freeze()


class FrozenEncoder(_Held):
    """Columns that are trained and re-aimed beside an encoder whose columns stay as they are drawn."""

    def encoder(self, name: str) -> Columns | None:
        made = super().encoder(name)
        assert made is not None
        made.freeze()
        return made


class SoftFrozen(_Held):
    """Columns whose cosine to where they started is at least `LEAST_COSINE` after each step and re-aiming.

    Rounding in fewer bits does not ask, and can bring a column a little below it.
    """

    start: Tensor | None

    def __init__(self, *support: Any, **keywords: Any) -> None:
        super().__init__(*support, **keywords)
        self.register_buffer("start", None, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        self.start = self._unit()

    @torch.no_grad()
    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        usable = super().aim(features, residual, drawn)
        self.constrain()
        return usable

    @torch.no_grad()
    def constrain(self) -> None:
        """Turn each column that is too far off to the nearest one that is not, of the same norm."""
        if self.start is None:
            return
        unit = self._unit()
        cosine = (unit * self.start).sum(dim=1, keepdim=True)
        # Rounding must not bring a column below the limit.
        nearest = LEAST_COSINE + 1e-5
        aside = torch.nn.functional.normalize(unit - cosine * self.start, dim=1)
        turned = nearest * self.start + (1 - nearest**2) ** 0.5 * aside
        brought = turned * self.values.norm(dim=1, keepdim=True)
        # Not by indexing with a mask, whose size a GPU would have to tell the host.
        self.values.copy_(torch.where(cosine < nearest, brought, self.values))

    @torch.no_grad()
    def _unit(self) -> Tensor:
        return torch.nn.functional.normalize(self._on_support(self.values), dim=1)
