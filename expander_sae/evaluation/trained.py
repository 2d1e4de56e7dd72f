"""A trained run as measurements ask for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.study.run import Run
from expander_sae.training.run_folder import WEIGHTS


@dataclass(frozen=True, eq=False)
class Trained:
    """Weights that a training job wrote. limit: tokens of a larger norm are passed through."""

    autoencoder: SparseAutoencoder
    run: Run
    fingerprint: str
    limit: float

    @classmethod
    def load(cls, folder: Path, device: str, backend: str) -> Trained:
        """Those of a run's folder.

        Raises:
            UserError: no weights of this format, or weights that no training job of a study wrote.
        """
        path = folder / WEIGHTS
        autoencoder, about = SparseAutoencoder.load(path, device, backend)
        try:
            run = Run.from_spec(about.get("spec"))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        limit = math.inf if about["norm_limit"] is None else about["norm_limit"]
        return cls(autoencoder, run, about["fingerprint"], limit)

    @cached_property
    def is_finite(self) -> bool:
        """Whether every parameter is finite."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.autoencoder.parameters())

    def encoded(self, pool: Pool, tokens: int) -> np.ndarray:
        """Which of a pool's first `tokens` it encodes: those whose norm is within the limit.

        Raises:
            UserError: there is none.
        """
        found = np.flatnonzero(pool.norms[:tokens] <= self.limit)
        if found.size == 0:
            raise UserError(f"norm_limit {self.limit:g}: no test token has a norm below it")
        return found
