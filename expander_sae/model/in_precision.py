"""What an autoencoder can do with the precision of its weights file."""

from __future__ import annotations

import copy
import math
from typing import Self

import torch
from torch import nn

from expander_sae.model import stored_biases
from expander_sae.model.held_parameters import HeldParameters
from expander_sae.model.precisions import FLOAT32, Precision, precision_of


class InPrecision(nn.Module):
    """An autoencoder of columns and biases that can be rounded to what a file holds."""

    b_enc: nn.Parameter
    b_dec: nn.Parameter
    _columns: tuple[HeldParameters, HeldParameters | None]

    @property
    def precision(self) -> str:
        """Of the weights file, one of `PRECISIONS`; its parameters are rounded but for ``float32``."""
        return self._columns[0].precision.name

    def stored(self, precision: str) -> Self:
        """A copy with the values that a weights file of this precision holds.

        It computes in float32, on rounded values: encoder, pursuits and `decode` see what the file has, and
        what is saved and loaded again computes the same to the last bit. ``bfloat16`` rounds every parameter.
        ``int8``, ``int4``, ``int2`` and ``int1`` bring the columns of W to whole levels, those of a free
        encoder to multiples of a step of their own, b_enc to levels of 8 bits with one step, and b_dec to
        bfloat16. The steps of W need no place: its columns are at unit norm whatever these are.

        Where a parameter is not finite, which no level is, b_dec becomes NaN.

        Raises:
            UserError: an unknown precision, or a column of zeros where the precision has no 0 (int4, int2 and
                int1).

        Examples:
            >>> from expander_sae import Trainer
            >>> h = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
            >>> sae = Trainer(h, n=32, d=2, k=4).fit(steps=5)
            >>> sae.stored("int4").values[0].tolist()  # levels −15, −13, …, 15
            [11.0, -15.0]
        """
        known = precision_of(precision)
        made = copy.deepcopy(self).float()
        made._round_to(known)
        return made

    def train_in(self, precision: str) -> None:
        """Round the columns whenever they are used, until `settle`: training is straight-through.

        The parameters stay as precise as they are, and gradients reach them as if nothing were rounded.
        """
        for columns in filter(None, self._columns):
            columns.precision, columns.rounds = precision_of(precision), precision != FLOAT32

    def settle(self) -> None:
        """End what `train_in` began: parameters become what was used, biases what a file holds."""
        if self._columns[0].rounds:
            self._round_to(self._columns[0].precision)

    def settled(self) -> Self:
        """The autoencoder itself, or in a training that rounds a copy at whose end it is."""
        if not self._columns[0].rounds:
            return self
        made = copy.deepcopy(self)
        made.settle()
        return made

    @torch.no_grad()
    def _round_to(self, precision: Precision) -> None:
        finite = all(bool(parameter.isfinite().all()) for parameter in self.parameters())
        if precision.levels and not finite:
            for parameter in self.parameters():
                parameter.nan_to_num_(nan=1.0, posinf=1.0, neginf=-1.0)
        for columns in filter(None, self._columns):
            columns.round_to(precision)
        for bias, found in zip(
            biases := (self.b_enc, self.b_dec), stored_biases.rounded(*biases, precision), strict=True
        ):
            bias.copy_(found)
        if precision.levels and not finite:
            self.b_dec.fill_(math.nan)
