"""What a study's runs are trained on: the pool of a split, or its shards as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings

import torch

from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.study.run import Run
from expander_sae.training.normalisation import KeptTokens, Normalisation, normalisation
from expander_sae.training.shard_pool import ShardPool, ShardTokens


@dataclass(frozen=True, eq=False)
class TrainingPool:
    """The activations of a run, their scaling, and a hash of those used and of the order that is theirs."""

    pool: Pool | ShardPool
    scaling: Normalisation
    digest: str

    @classmethod
    def read(cls, path: Path, run: Run) -> TrainingPool:
        """Those of the manifest of a pool, or of a list of shards where the run's recipe streams.

        Raises:
            UserError: of another width, or of too few tokens.
        """
        recipe = run.recipe_settings
        pool = ShardPool.listed(path, run.train_tokens, recipe.stream) if recipe.stream else Pool.open(path)
        if pool.m != run.m:
            raise UserError(f"{path}: activations of width {pool.m}, expected m = {run.m}")
        if isinstance(pool, ShardPool):
            return cls(pool, normalisation(pool, len(pool.norms), recipe), pool.digest())
        scaling = normalisation(pool, run.train_tokens, recipe)
        return cls(pool, scaling, pool.prefix_digest(run.train_tokens))

    def tokens(self, device: str | torch.device) -> KeptTokens | ShardTokens:
        """The tokens in batches of a device."""
        pool, scaling = self.pool, self.scaling
        if isinstance(pool, ShardPool):
            return ShardTokens(pool, scaling, device)
        with catch_warnings(action="ignore"):  # that the file must not be written to: nobody does
            activations = torch.from_numpy(pool.activations)
        return KeptTokens(activations, scaling, device, token_id=pool.token_id, document=pool.document)
