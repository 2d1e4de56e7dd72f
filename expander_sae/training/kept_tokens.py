"""What a session reads its batches from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expander_sae.storage.arrays import as_tensor
from expander_sae.training.normalisation import Normalisation


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """The kept tokens of some activations [N, m], in units of training.

    Args:
        activations: of any floating dtype and device; read where they lie, a batch at a time.
        device, dtype: those of the batches.
    """

    activations: Tensor
    normalisation: Normalisation
    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32

    @classmethod
    def of_file(
        cls, mapped: np.ndarray, normalisation: Normalisation, device: str | torch.device = "cpu"
    ) -> KeptTokens:
        """Those of a file that is mapped read-only."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of memory that must not be written: nobody does
            return cls(as_tensor(mapped), normalisation, device)

    def __len__(self) -> int:
        return len(self.normalisation.kept)

    def batch(self, positions: Tensor) -> Tensor:
        """[B, m] at int64 positions [B] among the kept tokens."""
        rows = torch.from_numpy(self.normalisation.kept)[positions].to(self.activations.device)
        # As fast as numpy's; `activations[rows]` takes nearly twice as long on a CPU.
        found = self.activations.index_select(0, rows).to(self.dtype)
        return (found * self.normalisation.scale).to(self.device)
