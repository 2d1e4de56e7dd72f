"""Exemplars: training tokens themselves as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.kernels.autograd import unit_columns
from expander_sae.machine.piece_sizes import FITTED_TOKENS
from expander_sae.model.dictionary import DenseDictionary
from expander_sae.model.fitted import Fitted, Sample

_SHORT = 1 << 16


class Exemplars(Fitted):
    """The activations of the first n kept training tokens, less the mean, at unit norm: `values` [n, m].

    Whoever has the language model needs no columns: the token ids of the documents up to the last of these
    tokens, and the documents' lengths, name them. Where the sample has ids, a file holds both.
    """

    def __init__(self, *support: Any, **keywords: Any) -> None:
        super().__init__(*support, **keywords)
        self.ids: Tensor | None = None
        self.lengths: Tensor | None = None

    def dictionary(self) -> DenseDictionary:
        return DenseDictionary(unit_columns(self.values))

    def tensors(self) -> dict[str, Tensor]:
        named = {"token_ids": self.ids, "document_lengths": self.lengths}
        return super().tensors() | {name: tensor for name, tensor in named.items() if tensor is not None}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        super().restore(tensors)
        self.ids, self.lengths = tensors.get("token_ids"), tensors.get("document_lengths")

    @property
    def named_by(self) -> int | None:
        """Bytes of the token ids, and of the lengths of their documents."""
        if self.ids is None or self.lengths is None:
            return None
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.ids, self.lengths))

    @property
    def record_bytes(self) -> int:
        return super().record_bytes + (self.named_by or 0)


def fit(columns: Exemplars, sample: Sample) -> None:
    """Set the columns to the first tokens of the sample, and name them by their ids where these are known."""
    n = columns.n
    if len(sample) < n:
        raise UserError(f"exemplars: found {len(sample)} kept training tokens, expected at least n = {n}")
    pieces = (slice(start, min(start + FITTED_TOKENS, n)) for start in range(0, n, FITTED_TOKENS))
    units = [unit_columns(sample.centred(piece.start, piece.stop)).to(columns.dtype) for piece in pieces]
    columns.fill(torch.cat(units))
    if sample.token_id is not None and sample.document is not None:
        end = int(sample.place[n - 1]) + 1
        columns.ids = _whole(sample.token_id[:end])
        columns.lengths = _whole(np.unique(sample.document[:end], return_counts=True)[1])


def _whole(values: np.ndarray) -> Tensor:
    """As uint16 where that is wide enough, otherwise as int32."""
    wide = torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32))
    return wide.to(torch.uint16) if int(wide.max()) < _SHORT else wide
