"""One training step and one resampling, and the state that they change.

Every tensor here is O(d·n) or O(B·k·w); see `expander_sae.kernels.autograd`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.inference import ENCODER, INFERENCES, Method, inferences
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import Recipe
from expander_sae.training import lazy, pursued
from expander_sae.training.data_parallel import ALONE, Processes

FIRING_THRESHOLD = 1e-6
LOG_COLUMNS = ("step", "loss", "relative_error", "silent_share", "learning_rate")


@dataclass(eq=False)
class TrainingState:
    """Everything that the next step depends on, beside the data.

    `codes` is what finds the codes that the decoder is trained with; `before` how many steps preceded its
    first one, where the log goes on.
    """

    autoencoder: SparseAutoencoder
    optimiser: torch.optim.Adam
    batches: torch.Generator
    resampling: torch.Generator
    fired: Tensor
    """int64 [n]: firings on this process's shares since the last resampling."""
    rate: float
    """The learning rate of which each of Adam's groups gets its share."""
    codes: Method = INFERENCES[ENCODER]
    before: int = 0
    step: int = 0
    log: list[list[float]] = field(default_factory=list)
    """Rows of LOG_COLUMNS."""
    processes: Processes = ALONE

    @classmethod
    def start(
        cls,
        autoencoder: SparseAutoencoder,
        recipe: Recipe,
        seed: int,
        codes: str = ENCODER,
        processes: Processes = ALONE,
    ) -> TrainingState:
        """Fresh state: streams (seed, batches) and (seed, resampling), Adam at zero."""
        device, rate = autoencoder.b_enc.device, recipe.learning_rate
        settings: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "fused": True}
        optimiser = torch.optim.Adam(
            _groups(autoencoder, recipe), lr=rate, capturable=device.type == "cuda", **settings
        )
        _begin(optimiser)
        if recipe.lazy:
            lazy.begin(optimiser, autoencoder)
        batches, resampling = (torch_generator(seed, purpose) for purpose in ("batches", "resampling"))
        fired = torch.zeros(autoencoder.n, dtype=torch.int64, device=device)
        method = inferences(codes)
        return cls(autoencoder, optimiser, batches, resampling, fired, rate, method, processes=processes)

    @property
    def finite(self) -> bool:
        """Whether the last logged loss is a number."""
        return not self.log or math.isfinite(self.log[-1][LOG_COLUMNS.index("loss")])

    @property
    def rows(self) -> list[dict[str, float]]:
        """The log as {column: value}."""
        return [dict(zip(LOG_COLUMNS, row, strict=True)) for row in self.log]

    @property
    def rates(self) -> list[float]:
        """The learning rate of each of Adam's groups: its share of `rate`."""
        return [self.rate * group["share"] for group in self.optimiser.param_groups]

    def set_rate(self, rate: float) -> None:
        """Give every parameter its share of the learning rate."""
        self.rate = rate
        self.read_rates(self.rates)

    def read_rates(self, held: Iterable[float | Tensor]) -> None:
        """What Adam reads the rate of each group from: a number, or a tensor that others write to."""
        for group, own in zip(self.optimiser.param_groups, held, strict=True):
            group["lr"] = own

    def changing(self) -> list[Tensor]:
        """The tensors that a step writes to: parameters, moments, counts. They stay where they are."""
        moments = [value for held in self.optimiser.state.values() for value in held.values()]
        return [*(parameter.detach() for parameter in self.autoencoder.parameters()), *moments, self.fired]

    def log_step(self, batch: Tensor, reconstruction: Tensor) -> None:
        """Log the step just made on `batch` with this ĥ, both [B, m]; silent: not fired since resampling."""
        loss = (reconstruction - batch).square().sum(dim=1).mean()
        norms = batch.norm(dim=1).clamp(min=torch.finfo(batch.dtype).tiny)
        error: Any = ((reconstruction - batch).norm(dim=1) / norms).mean()
        silent: Any = (self.processes.total(self.fired) == 0).double().mean()
        means = self.processes.mean([float(loss), float(error)])
        self.log.append([self.before + self.step, *means, float(silent), self.rates[0]])

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""
        stored = {f"parameter.{name}": p.detach() for name, p in self.autoencoder.named_parameters()}
        for name, parameter in self.autoencoder.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                stored[f"adam.{name}.{key}"] = value
        streams = {"batches": self.batches, "resampling": self.resampling}
        stored |= {f"generator.{name}": stream.get_state() for name, stream in streams.items()}
        log = torch.tensor(self.log, dtype=torch.float64).reshape(-1, len(LOG_COLUMNS))
        stored |= {f"decoder.{name}": part for name, part in self.autoencoder.decoder.state().items()}
        fired = self.processes.total(self.fired)
        return stored | {"fired": fired, "log": log, "step": torch.tensor([self.step])}

    @torch.no_grad()
    def restore(self, stored: dict[str, Tensor]) -> None:
        """Take over the tensors of `tensors()`, each where it is."""
        decoder = self.autoencoder.decoder
        decoder.resume({name: stored[f"decoder.{name}"] for name in decoder.state()})
        for name, parameter in self.autoencoder.named_parameters():
            parameter.copy_(stored[f"parameter.{name}"])
            for key, held in self.optimiser.state.get(parameter, {}).items():
                if (value := stored.get(f"adam.{name}.{key}")) is not None:
                    held.copy_(value)
        self.batches.set_state(stored["generator.batches"])
        self.resampling.set_state(stored["generator.resampling"])
        self.fired.copy_(stored["fired"] if self.processes.first else 0 * stored["fired"])
        self.log = stored["log"].tolist()
        self.step = int(stored["step"])


def _groups(autoencoder: SparseAutoencoder, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups of Adam, the first parameter's first: of all parameters with one `share` of the learning rate,
    which a GPU takes in one launch."""
    sizes = autoencoder.column_sizes()
    rate = recipe.learning_rate
    of_biases = 1.0 if recipe.bias_rate is None else autoencoder.d**0.5 * recipe.bias_rate / rate
    shares = {name: size**-0.5 if recipe.rate_per_column else 1.0 for name, size in sizes.items()}
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in autoencoder.named_parameters():
        groups.setdefault(shares.get(name, of_biases), []).append(parameter)
    return [{"params": parameters, "share": share} for share, parameters in groups.items()]


def _begin(optimiser: torch.optim.Adam) -> None:
    """Moments of zero, as Adam itself makes them at its first step: from then on they stay where they are."""
    for group in optimiser.param_groups:
        for parameter in (each for each in group["params"] if each.requires_grad):
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            optimiser.state[parameter] = {"step": step, **moments}


def train_step(state: TrainingState, batch: Tensor, recipe: Recipe) -> Tensor:
    """One update on this process's share [B, m] of a batch; returns ĥ [B, m] as it was before.

    Nothing here depends on the step's number, and nothing returns to the host: the same operations, each
    time. What depends on it is `training.session`'s: the learning rate, the log, resampling, checkpoints.
    """
    autoencoder = state.autoencoder
    with autoencoder.undisturbed(batch):
        if state.codes.name == ENCODER:
            reconstruction, code = autoencoder.set_gradients(batch)
        else:
            code = state.codes(autoencoder, batch)
            reconstruction = pursued.set_gradients(autoencoder, batch, code)
        state.processes.average_gradients(autoencoder.parameters())
        if recipe.lazy:
            lazy.update(autoencoder, state.optimiser, code.index, recipe.clip_norm, state.processes)
        else:
            torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), recipe.clip_norm)
            state.optimiser.step()
        autoencoder.decoder.constrain()
        if recipe.count_after_update:
            code = autoencoder.encode(batch)
        fires = (code.value.abs() > FIRING_THRESHOLD).to(torch.int64)
        state.fired.scatter_add_(0, code.index.clamp(min=0).flatten(), fires.flatten())  # −1: no feature
    return reconstruction


@torch.no_grad()
def resample(state: TrainingState, batch: Tensor, recipe: Recipe) -> int:
    """Re-aim silent features at samples that are badly rebuilt by `state.codes`; returns how many.

    A feature that fired fewer than `resample_min_fires` times since the last call takes the residual of a
    sample of the batch, drawn with probability proportional to its squared error, restricted to its support
    and divided by √d; its b_enc becomes 0; Adam's moments are kept. `batch` is this process's share of the
    batch. A free encoder takes the same sample, on its own support, at unit norm. Nothing is done where more
    than `resample_max_dead` of the features are silent or the errors are not finite.
    """
    autoencoder = state.autoencoder
    silent = torch.nonzero(state.processes.total(state.fired) < recipe.resample_min_fires).flatten()
    state.fired.zero_()
    if silent.numel() == 0 or silent.numel() > recipe.resample_max_dead * autoencoder.n:
        return 0
    residual = state.processes.gathered(batch - autoencoder.decode(state.codes(autoencoder, batch)))
    weight = residual.double().square().sum(dim=1).cpu()
    if not (torch.isfinite(weight).all() and weight.sum() > 0):
        return 0
    drawn = torch.multinomial(weight, silent.numel(), replacement=True, generator=state.resampling)
    return autoencoder.aim(silent, residual, drawn.to(residual.device))
