"""Train an autoencoder on a tensor: the workflow's recipe and loop, without its files."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.machine.device import resolve_device
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.supports import find
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from expander_sae.storage.arrays import as_tensor
from expander_sae.storage.files import digest
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.study.recipes import resolve
from expander_sae.training.loggers import Logger
from expander_sae.training.loop import LOG_COLUMNS, Cadence, Report, TrainingState, train
from expander_sae.training.normalisation import Normalisation, normalisation

_CHUNK = 8192


class _Rows:
    """A tensor whose slices are float32 arrays, so that bfloat16 and CUDA tensors are read in pieces."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._tensor[rows].detach().float().cpu().numpy()


class TensorPool:
    """A user's activations [N, m] as training reads them. Nothing is copied but what torch cannot read.

    Raises:
        UserError: not two axes, not floating point, no token, or a value that is not finite.
    """

    path = "activations"

    def __init__(self, activations: Tensor | np.ndarray) -> None:
        tensor = as_tensor(activations)
        if tensor.ndim != 2 or not tensor.is_floating_point():
            found = f"{list(tensor.shape)} of {tensor.dtype}"
            raise UserError(f"activations: found {found}, expected a floating-point tensor [N, m]")
        if not tensor.shape[0]:
            raise UserError("activations: found no token, expected one or more")
        self.tensor = tensor.detach()
        self.tokens, self.m = tensor.shape
        self.activations = _Rows(self.tensor)
        pieces = [
            np.linalg.norm(self.activations[slice(start, start + _CHUNK)].astype(np.float64), axis=1)
            for start in range(0, self.tokens, _CHUNK)
        ]
        self.norms = np.concatenate(pieces)
        wrong = np.flatnonzero(~np.isfinite(self.norms))
        if wrong.size:
            raise UserError(f"activations: found a value that is not finite in row {wrong[0]}, expected none")

    def check_tokens(self, tokens: int) -> None:
        if not 0 < tokens <= self.tokens:
            raise UserError(f"activations: found {self.tokens} tokens, expected {tokens}")

    def digest(self) -> str:
        """sha256 of the values as float32: about a second for a gigabyte."""
        content = hashlib.sha256()
        for start in range(0, self.tokens, _CHUNK):
            content.update(np.ascontiguousarray(self.activations[slice(start, start + _CHUNK)]).data)
        return content.hexdigest()

    def drawer(self, scaling: Normalisation, device: torch.device) -> Any:
        """Batches of the kept tokens, scaled, float32 on the device."""
        kept = torch.from_numpy(scaling.kept)

        def draw(positions: Tensor) -> Tensor:
            rows = self.tensor[kept[positions].to(self.tensor.device)]
            return (rows.float() * scaling.scale).to(device)

        return draw


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
        activations: [N, m], any floating dtype and device; left where it is and not changed.
        n, k: features, active features per token.
        d: nonzeros of each decoder column; needed unless the support is dense.
        support: a mask family (`expander_sae.MaskRecipe`), ``dense``, or a `Mask` of your own recipe.
        encoder: ``tied``, ``warm_tied`` or ``independent`` (`SparseAutoencoder`).
        recipe: ``standard`` or ``paper`` (`expander_sae.study.recipes`).
        seed: of the mask, the first weights, the batches and the resampling.
        device: ``auto`` takes CUDA where there is one.
        backend: kernels, see `expander_sae.kernels.backends.select`.
        log_every: steps between two calls of `on_log`.
        on_log: told {step, loss, relative_error, silent_share, learning_rate} of the scaled training. A
            `loggers.Logger` is also told, by `resume`, of the rows that a checkpoint holds.
        checkpoint: a file to write every `checkpoint_every` steps and at the end; `fit` goes on from
            it, and ends as an undisturbed run would, bit for bit on one machine.
        overrides: fields of `expander_sae.study.recipes.Recipe`, such as ``batch_size=1024``.

    Attributes after `fit`: `log`, the rows told to `on_log`; `norm_limit`, the norm above which tokens
    were left out (None: none were); `scale`, the factor applied to activations in training, already
    folded out of the weights.

    Raises:
        UserError: naming the argument, what was found and what was expected.
    """

    def __init__(
        self,
        activations: Tensor | np.ndarray,
        *,
        n: int,
        k: int,
        d: int | None = None,
        support: str | Mask = "expander",
        encoder: str = "tied",
        recipe: str = "standard",
        seed: int = 0,
        device: str | torch.device = "auto",
        backend: str = "auto",
        log_every: int = 50,
        on_log: Report | None = None,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 500,
        **overrides: Any,
    ) -> None:
        n, k, seed = _whole("n", n, 1), _whole("k", k, 1), _whole("seed", seed)
        d = None if d is None else _whole("d", d, 1)
        log_every, checkpoint_every = (
            _whole(name, value, 0)
            for name, value in (("log_every", log_every), ("checkpoint_every", checkpoint_every))
        )
        self.pool = TensorPool(activations)
        self.recipe_name, self.recipe = resolve(recipe, overrides)
        self.n, self.k, self.encoder, self.seed = n, k, encoder, seed
        self.device = resolve_device(device)
        self.backend = backend
        self.cadence = Cadence(log_every, checkpoint_every if checkpoint is not None else 0)
        self.on_log, self.checkpoint = on_log, checkpoint
        self.support = self._support(support, d)
        self.scaling = normalisation(self.pool, self.pool.tokens, self.recipe)
        self.norm_limit = self.scaling.norm_limit
        self.scale = self.scaling.scale
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
        """Train from the start (or from the checkpoint) to `steps`.

        Returns an autoencoder of the activations in their own units, on the device of training; its
        `encode` takes activations of any device. Its `about`, kept by `save`,
        holds the settings and the norm limit.

        Raises:
            UserError: steps < 1, a checkpoint of another training, or a loss that is not finite.
        """
        steps = _whole("steps", steps, 1)
        autoencoder = SparseAutoencoder(self.pool.m, self.n, self.k, self.support, self.encoder, self.backend)
        autoencoder.initialise(torch_generator(self.seed, "initialisation"))
        if self.recipe.start_at_mean:
            with torch.no_grad():
                autoencoder.b_dec.copy_(torch.from_numpy(self.scaling.mean) * self.scale)
        autoencoder.to(self.device)
        state = TrainingState.start(autoencoder, self.recipe, self.seed)
        spec = self.spec(steps)
        identity = self._resume(state, spec)
        finite = train(
            state,
            self.pool.drawer(self.scaling, self.device),
            len(self.scaling.kept),
            steps,
            self.recipe,
            self.cadence,
            checkpoint=lambda now: self._save(now, identity),
            report=self._report,
        )
        if not finite:
            raise UserError(
                f"training: the loss was not finite at step {state.step}, expected a number; a smaller "
                "learning_rate may help"
            )
        if self.checkpoint is not None:
            self._save(state, identity)
        autoencoder.rescale(self.scale)
        autoencoder.about = {"spec": spec, "norm_limit": self.norm_limit, "scale": self.scale}
        return autoencoder

    def spec(self, steps: int) -> dict[str, Any]:
        """The settings as JSON values, under the names of the workflow's tables."""
        recipe = self.support.recipe
        return {
            "recipe": self.recipe_name,
            "recipe_settings": asdict(self.recipe),
            "support": recipe.family,
            "encoder": self.encoder,
            "m": self.pool.m,
            "n": self.n,
            "d": recipe.d,
            "k": self.k,
            "train_tokens": self.pool.tokens,
            "steps": steps,
            "seed": self.seed,
        }

    def _report(self, row: dict[str, float]) -> None:
        self.log.append(row)
        if self.on_log is not None:
            self.on_log(row)

    def _resume(self, state: TrainingState, spec: dict[str, Any]) -> str:
        """Take over the checkpoint, where there is one; returns what tells this training from others."""
        self.log = []
        if self.checkpoint is None:
            return ""
        identity = digest(
            {
                "spec": spec,
                "mask": self.support.sha256,
                "activations": self.pool.digest(),
                "stage": lineage("training"),
            }
        )
        if Path(self.checkpoint).exists():
            stored, about = load_tensors(self.checkpoint)
            if about.get("fingerprint") != identity:
                raise UserError(
                    f"{self.checkpoint}: a checkpoint of other settings or activations, expected one of this "
                    "training; remove it or name another file"
                )
            state.restore(stored)
            self.log = [dict(zip(LOG_COLUMNS, row, strict=True)) for row in state.log]
            if isinstance(self.on_log, Logger) and self.log:
                self.on_log.resume(self.log)
        return identity

    def _save(self, state: TrainingState, identity: str) -> None:
        assert self.checkpoint is not None
        save_tensors(state.tensors(), self.checkpoint, {"fingerprint": identity})
