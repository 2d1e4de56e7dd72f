"""Train an autoencoder on a tensor: the workflow's recipe and loop, without its files."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.machine.device import resolve_device
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.supports import described, find
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.precisions import FLOAT32, TRAINED, precision_of
from expander_sae.pursuit.inference import ENCODER, inferences
from expander_sae.stages import lineage
from expander_sae.storage.files import digest
from expander_sae.study.recipes import DEFAULT, resolve
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.data_parallel import ALONE, joined
from expander_sae.training.loggers import Logger, Report
from expander_sae.training.normalisation import KeptTokens, normalisation
from expander_sae.training.session import Cadence, Session
from expander_sae.training.shard_pool import ShardPool, ShardTokens
from expander_sae.training.tensor_pool import TensorPool


def _whole(name: str, value: Any, least: int | None = None) -> int:
    """The value as an int; a number that only happens to be whole, such as 4.0, is refused."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{name}: found {value!r}, expected a whole number")
    if least is not None and value < least:
        raise UserError(f"{name}: found {value}, expected at least {least}")
    return int(value)


class Trainer:
    """Trains TopK autoencoders of one shape on one tensor.

    Equal arguments give equal weights, those of the workflow where it trains on the same activations.

    Args:
        activations: [N, m], any floating dtype and device; left where it is and not changed. Or a
            `ShardPool`, whose shards are read as they are trained on.
        n, k: features, active features per token.
        d: nonzeros of each decoder column; needed unless the support is dense.
        support: a mask family (`expander_sae.MaskRecipe`), ``dense``, or a `Mask` of your own recipe.
        encoder: ``tied`` or another kind of `SparseAutoencoder`.
        precision: of the weights file, see `SparseAutoencoder.stored`; another one than ``float32`` is
            trained in, straight-through: every step sees rounded columns. Rounding later needs none of this.
        codes: with another one than ``encoder``, such as ``omp`` or ``block_omp_4``, `pursuit_steps` of the
            recipe follow, in which the decoder is trained with codes by that pursuit. These are then the
            codes to read it by: a tied encoder is spoilt by it.
        recipe: ``tuned``, ``standard`` or ``paper`` (`expander_sae.study.recipes`).
        seed: of the mask, the first weights, the batches and the resampling.
        device: ``auto`` takes CUDA where there is one.
        backend: kernels, see `expander_sae.kernels.backends.select`.
        log_every: steps between two calls of `on_log`.
        on_log: told {step, loss, relative_error, silent_share, learning_rate} of the scaled training. A
            `loggers.Logger` is also told, by `resume`, of the rows that a checkpoint holds.
        checkpoint: a file to write every `checkpoint_every` steps and at the end; `fit` goes on from
            it, and ends as an undisturbed run would, bit for bit on one machine.
        data_parallel: whether the processes that `torchrun` or `srun` has started train this one autoencoder
            together, each on its share of every batch. All are given the same arguments and activations, and
            end with the same weights; the first one tells `on_log` and writes the checkpoint, which all read.
        overrides: fields of `expander_sae.study.recipes.Recipe`, such as ``batch_size=1024``.

    Attributes after `fit`: `log`, the rows told to `on_log`; `norm_limit`, the norm above which tokens
    were left out (None: none were); `scale`, the factor applied to activations in training, already
    folded out of the weights.

    Raises:
        UserError: naming the argument, what was found and what was expected.

    Examples:
        >>> h = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> trainer = Trainer(h, n=32, d=2, k=4, log_every=5)
        >>> trainer.fit(steps=10).values.shape  # d learned values for each of n columns
        torch.Size([32, 2])
        >>> [row["step"] for row in trainer.log]
        [5, 10]
    """

    def __init__(
        self,
        activations: Tensor | np.ndarray | ShardPool,
        *,
        n: int,
        k: int,
        d: int | None = None,
        support: str | Mask = "expander",
        encoder: str = "tied",
        precision: str = "float32",
        codes: str = ENCODER,
        recipe: str = DEFAULT,
        seed: int = 0,
        device: str | torch.device = "auto",
        backend: str = "auto",
        log_every: int = 50,
        on_log: Report | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
        data_parallel: bool = False,
        **overrides: Any,
    ) -> None:
        n, k, seed = _whole("n", n, 1), _whole("k", k, 1), _whole("seed", seed)
        d = None if d is None else _whole("d", d, 1)
        log_every = _whole("log_every", log_every, 0)
        checkpoint_every = _whole("checkpoint_every", checkpoint_every, 0)
        self.pool: TensorPool | ShardPool
        self.pool = activations if isinstance(activations, ShardPool) else TensorPool(activations)
        self.recipe_name, self.recipe = resolve(recipe, overrides)
        if self.recipe.stream:
            raise UserError(
                f"stream: found {self.recipe.stream}, expected a ShardPool with this buffer as activations "
                "(on the command line --stream)"
            )
        self.n, self.k, self.encoder, self.seed = n, k, encoder, seed
        self.precision, self.codes = precision_of(precision).name, inferences(codes).name
        self.processes, device = joined(device) if data_parallel else (ALONE, device)
        self.device, self.backend = resolve_device(device), backend
        self.cadence = Cadence(log_every, checkpoint_every, checkpoint_last=True)
        self.on_log, self.checkpoint = on_log, checkpoint
        self.support = self._support(support, d)
        if codes != ENCODER and not described(self.support.recipe.family).learns_columns:
            found = f"{codes!r} for a {self.support.recipe.family} dictionary"
            raise UserError(f"codes: found {found}, expected {ENCODER}: no training moves its columns")
        self.scaling = normalisation(self.pool, len(self.pool.norms), self.recipe)
        self.norm_limit, self.scale = self.scaling.norm_limit, self.scaling.scale
        self.log: list[dict[str, float]] = []

    def _support(self, support: str | Mask, d: int | None) -> Mask | MaskRecipe:
        if isinstance(support, Mask):
            return support
        m, known = self.pool.m, find(support)
        if known is not None and known.full:
            if d not in (None, m):
                raise UserError(f"d: found {d}, expected none, or m = {m}, for a {support} support")
            d = m
        if d is None:
            raise UserError(f"d: found none, expected 1 to m = {m} for the support {support!r}")
        recipe = MaskRecipe(support, m, self.n, d, self.seed)
        return recipe if known is not None and known.make is None else recipe.generate()

    def fit(self, steps: int) -> SparseAutoencoder:
        """Train from the start (or from the checkpoint) to `steps`; none where nobody trains the support.

        Those with codes by a pursuit follow, and are not counted in `steps`.

        Returns:
            An autoencoder of the activations in their own units, on the device of training; its `encode`
            takes activations of any device. Its `about`, kept by `save`, holds the settings and the norm
            limit.

        Raises:
            UserError: steps < 1, a checkpoint of another training, or a loss that is not finite.
        """
        steps = _whole("steps", steps, 1)
        steps = steps if described(self.support.recipe.family).trained else 0
        if self.processes.count > 1:
            told = self.spec(steps) | {"activations": self.pool.digest()}
            self.processes.require_equal("data_parallel", told)
        final = self._checkpoint(self.spec(steps))
        self.log, parent = [], None
        if self.codes != ENCODER:
            first = self._checkpoint(self.spec(steps, ENCODER))
            if first is None or final is None or not final.is_mine:
                parent = self._train(ENCODER, steps, first)
            if first is not None and final is not None:
                final = replace(final, earlier=first.fingerprint)
        return self._train(self.codes, steps, final, parent)

    def _train(
        self, codes: str, steps: int, checkpoint: Checkpoint | None, parent: SparseAutoencoder | None = None
    ) -> SparseAutoencoder:
        """Train with these codes, after `steps` with those of the encoder where they are by a pursuit."""
        pursued = codes != ENCODER
        autoencoder = SparseAutoencoder(self.pool.m, self.n, self.k, self.support, self.encoder, self.backend)
        autoencoder.train_in(self.precision)
        tokens: KeptTokens | ShardTokens
        if isinstance(self.pool, ShardPool):
            tokens = ShardTokens(self.pool, self.scaling, self.device)
        else:
            tokens = KeptTokens(self.pool.activations, self.scaling, self.device)
        recipe = self.recipe.pursuing if pursued else self.recipe
        last = recipe.pursuit_steps if pursued else steps
        session = Session(tokens, recipe, last, self.cadence, codes=codes, processes=self.processes)
        training = session.start(autoencoder, self.seed, checkpoint, parent, report=self.on_log)
        state = training.state
        if pursued:
            state.before, state.log = steps, state.log or [[*row.values()] for row in self.log]
        if isinstance(self.on_log, Logger) and state.step and state.rows and self.processes.first:
            self.on_log.resume(state.rows)
        session.train([training])
        self.log = state.rows
        if not state.finite:
            found = f"the loss was not finite at step {state.before + state.step}, expected a number"
            raise UserError(
                f"training: {found}; a smaller {'pursuit' if pursued else 'learning'}_rate may help"
            )
        spec = self.spec(steps, codes)
        autoencoder.about = {"spec": spec, "norm_limit": self.norm_limit, "scale": self.scale}
        return autoencoder

    def spec(self, steps: int, codes: str | None = None) -> dict[str, Any]:
        """The settings as JSON values, under the names of the workflow's tables; None: its own codes."""
        codes = self.codes if codes is None else codes
        support = self.support.recipe
        how: dict[str, Any] = {"recipe": self.recipe_name, "recipe_settings": self.recipe.settings}
        what = {"support": support.family, "encoder": self.encoder}
        sizes: dict[str, Any] = {"m": self.pool.m, "n": self.n, "d": support.d, "k": self.k}
        sizes |= {} if self.precision == FLOAT32 else {"precision": f"{self.precision}{TRAINED}"}
        sizes |= {} if codes == ENCODER else {"codes": codes}
        return how | what | sizes | {"train_tokens": self.pool.tokens, "steps": steps, "seed": self.seed}

    def _checkpoint(self, spec: dict[str, Any]) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        told_apart_by = {"spec": spec, "mask": self.support.sha256, "activations": self.pool.digest()}
        return Checkpoint(Path(self.checkpoint), digest(told_apart_by | {"stage": lineage("training")}))
