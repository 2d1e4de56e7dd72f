"""The training loop: published schedule, clipping and resampling, with exact resume.

Every tensor here is O(d·n) or O(B·k·w); see `expander_sae.kernels.autograd`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import Recipe

FIRING_THRESHOLD = 1e-6
LOG_COLUMNS = ("step", "loss", "relative_error", "silent_share", "learning_rate")

Draw = Callable[[Tensor], Tensor]
"""Batch of activations [B, m] at int64 positions [B]."""

Report = Callable[[dict[str, float]], None]
"""Told each logged row as {column: value}, as soon as it is known."""


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Cosine from `learning_rate` at step 0 towards `learning_rate_end` at step `steps`."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return recipe.learning_rate_end + (recipe.learning_rate - recipe.learning_rate_end) * cosine


@dataclass
class TrainingState:
    """Everything that the next step depends on, beside the data."""

    autoencoder: SparseAutoencoder
    optimiser: torch.optim.Adam
    batches: torch.Generator
    resampling: torch.Generator
    fired: Tensor
    step: int = 0
    log: list[list[float]] = field(default_factory=list)

    @classmethod
    def start(cls, autoencoder: SparseAutoencoder, recipe: Recipe, seed: int) -> TrainingState:
        """Fresh state: streams (seed, batches) and (seed, resampling), Adam at zero."""
        optimiser = torch.optim.Adam(
            autoencoder.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True
        )
        fired = torch.zeros(autoencoder.n, dtype=torch.int64, device=autoencoder.b_enc.device)
        return cls(
            autoencoder,
            optimiser,
            torch_generator(seed, "batches"),
            torch_generator(seed, "resampling"),
            fired,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""
        stored = {f"parameter.{name}": p.detach() for name, p in self.autoencoder.named_parameters()}
        for name, parameter in self.autoencoder.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                stored[f"adam.{name}.{key}"] = value
        stored["generator.batches"] = self.batches.get_state()
        stored["generator.resampling"] = self.resampling.get_state()
        stored["fired"] = self.fired
        stored["log"] = torch.tensor(self.log, dtype=torch.float64).reshape(-1, len(LOG_COLUMNS))
        stored["step"] = torch.tensor([self.step])
        return stored

    @torch.no_grad()
    def restore(self, stored: dict[str, Tensor]) -> None:
        """Take over the tensors of `tensors()`."""
        for name, parameter in self.autoencoder.named_parameters():
            parameter.copy_(stored[f"parameter.{name}"])
            prefix = f"adam.{name}."
            moments = {
                key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)
            }
            if moments:
                self.optimiser.state[parameter] = {
                    key: value.clone() if key == "step" else value.to(parameter.device).clone()
                    for key, value in moments.items()
                }
        self.batches.set_state(stored["generator.batches"])
        self.resampling.set_state(stored["generator.resampling"])
        self.fired.copy_(stored["fired"])
        self.log = stored["log"].tolist()
        self.step = int(stored["step"])


def train_step(state: TrainingState, batch: Tensor, steps: int, recipe: Recipe) -> Tensor:
    """One update on batch [B, m]; returns ĥ [B, m] as it was before. Does not resample."""
    autoencoder = state.autoencoder
    with autoencoder.undisturbed(batch):
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(state.step, steps, recipe)
        reconstruction, code = autoencoder.set_gradients(batch)
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), recipe.clip_norm)
        state.optimiser.step()
        if recipe.count_after_update:
            code = autoencoder.encode(batch)
        fires = (code.value.abs() > FIRING_THRESHOLD).to(torch.int64)
        state.fired.scatter_add_(0, code.index.flatten(), fires.flatten())
    state.step += 1
    return reconstruction


@torch.no_grad()
def resample(state: TrainingState, batch: Tensor, recipe: Recipe) -> int:
    """Re-aim silent features at badly reconstructed samples; returns how many.

    A feature that fired fewer than `resample_min_fires` times since the last call takes the
    residual of a sample of `batch`, drawn with probability proportional to its squared error,
    restricted to its support and divided by √d; its b_enc becomes 0; Adam's moments are kept.
    A free encoder takes the same sample, on its own support, at unit norm. Nothing is done where more than
    `resample_max_dead` of the features are silent or the errors are not finite.
    """
    autoencoder = state.autoencoder
    silent = torch.nonzero(state.fired < recipe.resample_min_fires).flatten()
    state.fired.zero_()
    if silent.numel() == 0 or silent.numel() > recipe.resample_max_dead * autoencoder.n:
        return 0
    residual = batch - autoencoder.decode(autoencoder.encode(batch))
    weight = residual.double().square().sum(dim=1).cpu()
    if not (torch.isfinite(weight).all() and weight.sum() > 0):
        return 0
    drawn = torch.multinomial(weight, silent.numel(), replacement=True, generator=state.resampling)
    return autoencoder.aim(silent, residual, drawn.to(residual.device))


@dataclass(frozen=True)
class Cadence:
    """How often a run logs and checkpoints, in steps; 0 is never. Neither changes a result."""

    log_every: int = 50
    checkpoint_every: int = 0


def train(
    state: TrainingState,
    draw: Draw,
    pool_size: int,
    steps: int,
    recipe: Recipe,
    cadence: Cadence = Cadence(),
    checkpoint: Callable[[TrainingState], None] | None = None,
    label: str = "training",
    report: Report | None = None,
) -> bool:
    """Run from `state.step` to `steps`; returns False where the loss stopped being finite.

    Batches are drawn with replacement from `pool_size` positions through `draw`. Each row of
    `state.log` holds LOG_COLUMNS, silent_share being the share of features that have not fired
    since the last resampling; `report` is told it too.
    """
    return train_together([state], draw, pool_size, steps, recipe, cadence, checkpoint, label, report)[0]


def train_together(
    states: Sequence[TrainingState],
    draw: Draw,
    pool_size: int,
    steps: int,
    recipe: Recipe,
    cadence: Cadence = Cadence(),
    checkpoint: Callable[[TrainingState], None] | None = None,
    label: str = "training",
    report: Report | None = None,
) -> list[bool]:
    """`train` several autoencoders side by side: those of one seed share each batch that is read.

    Every one ends as it would alone, bit for bit, since each draws its positions from its own
    stream. States may stand at different steps.
    """
    finite = [True] * len(states)
    total, done = steps * len(states), sum(state.step for state in states)
    with tqdm(total=total, initial=done, desc=label, unit="step", disable=not sys.stderr.isatty()) as bar:
        while running := [i for i, state in enumerate(states) if finite[i] and state.step < steps]:
            read: dict[bytes, Tensor] = {}
            for i in running:
                positions = torch.randint(pool_size, (recipe.batch_size,), generator=states[i].batches)
                key = positions.numpy().tobytes()
                if key not in read:
                    read[key] = draw(positions)
                finite[i] = _advance(states[i], read[key], steps, recipe, cadence, checkpoint, report)
                bar.update()
    return finite


def _advance(
    state: TrainingState,
    batch: Tensor,
    steps: int,
    recipe: Recipe,
    cadence: Cadence,
    checkpoint: Callable[[TrainingState], None] | None,
    report: Report | None,
) -> bool:
    """One step with all that hangs on its number; False where a logged loss is not finite."""
    reconstruction = train_step(state, batch, steps, recipe)
    last, finite = state.step == steps, True
    if last or (cadence.log_every and state.step % cadence.log_every == 0):
        state.log.append(_log_row(state, batch, reconstruction, steps, recipe))
        finite = math.isfinite(state.log[-1][LOG_COLUMNS.index("loss")])
        if report:
            report(dict(zip(LOG_COLUMNS, state.log[-1], strict=True)))
    if state.step % recipe.resample_every == 0 and (recipe.resample_at_end or not last):
        resample(state, batch, recipe)
    if checkpoint and cadence.checkpoint_every and state.step % cadence.checkpoint_every == 0 and not last:
        checkpoint(state)
    return finite


def _log_row(
    state: TrainingState, batch: Tensor, reconstruction: Tensor, steps: int, recipe: Recipe
) -> list[float]:
    loss = (reconstruction - batch).square().sum(dim=1).mean()
    norms = batch.norm(dim=1).clamp(min=torch.finfo(batch.dtype).tiny)
    error: Any = ((reconstruction - batch).norm(dim=1) / norms).mean()
    silent: Any = (state.fired == 0).double().mean()
    return [
        state.step,
        float(loss),
        float(error),
        float(silent),
        learning_rate(state.step - 1, steps, recipe),
    ]
