"""Training sessions: the one loop, for one autoencoder or for many that share tokens and a recipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.supports import described
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.columns import Entries
from expander_sae.pursuit.inference import ENCODER
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import Recipe
from expander_sae.training import pursued
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.data_parallel import ALONE, Processes
from expander_sae.training.growth import BATCHES, grow, growth_share
from expander_sae.training.loggers import Report
from expander_sae.training.normalisation import KeptTokens
from expander_sae.training.recording import Recorder, recorder_for
from expander_sae.training.room import free_bytes, one_more
from expander_sae.training.rounds import Round
from expander_sae.training.shard_pool import ShardTokens
from expander_sae.training.step import TrainingState, resample


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Cosine from `learning_rate` at step 0 towards `learning_rate_end` at step `steps`."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return recipe.learning_rate_end + (recipe.learning_rate - recipe.learning_rate_end) * cosine


@dataclass(frozen=True)
class Cadence:
    """How often a training logs and checkpoints, in steps; 0 is never. Nothing of it changes a result.

    The last step is logged always, and kept in the checkpoint where `checkpoint_last` asks for it.
    """

    log_every: int = 50
    checkpoint_every: int = 0
    checkpoint_last: bool = False


@dataclass(frozen=True, eq=False)
class Training:
    """One autoencoder in a session, and who is told of it.

    `done` is told the state when it is over; the weights are then those of activations in their own units.
    """

    state: TrainingState
    checkpoint: Checkpoint | None = None
    report: Report | None = None
    done: Callable[[TrainingState], None] | None = None


@dataclass(frozen=True, eq=False)
class Session:
    """What autoencoders share that are trained together: tokens, recipe, number of steps, cadence, `codes`.

    `side_by_side` of them are advanced at once, for which memory grows; None is one, and on a GPU as many as
    find room there. Each ends as it would alone, bit for bit, since it draws its batches from its own stream;
    those of one seed share each batch that is read. On a GPU their steps are one graph, and atomics may
    change the last bits (`torch.use_deterministic_algorithms`). `record` makes steps repeatable in another
    way than that of `recording.recorder_for`. With several `processes`, and on tokens that are streamed, each
    step is called, and None is one on a GPU too.
    """

    tokens: KeptTokens | ShardTokens
    recipe: Recipe
    steps: int
    cadence: Cadence = Cadence()
    side_by_side: int | None = None
    codes: str = ENCODER
    record: Recorder | None = None
    processes: Processes = ALONE

    def start(
        self,
        autoencoder: SparseAutoencoder,
        seed: int,
        checkpoint: Checkpoint | None = None,
        parent: SparseAutoencoder | None = None,
        report: Report | None = None,
        done: Callable[[TrainingState], None] | None = None,
    ) -> Training:
        """A new autoencoder on the session's device, at its first step or where its checkpoint left it.

        `seed` is that of the first weights, the batches and the resampling. This one starts at the biases of
        `parent`, an autoencoder of activations in their own units: with codes by a pursuit where that one
        ended, of the same shape; otherwise at the entries on the mask of a dense one. What nobody trains
        is fitted to the tokens, centred at their mean.
        """
        scaling, known = self.tokens.normalisation, described(autoencoder.decoder.recipe.family)
        if known.fitted and self.codes == ENCODER:
            known.fitting()(autoencoder.decoder, self.tokens)
        if known.trained:
            autoencoder.initialise(torch_generator(seed, "initialisation"))
        with torch.no_grad():
            if parent is not None and self.codes != ENCODER:
                pursued.go_on_from(parent, autoencoder, scaling.scale)
            elif parent is not None:
                _start_at(parent, autoencoder, scaling.scale)
            elif self.recipe.start_at_mean or not known.trained:
                autoencoder.b_dec.copy_(torch.from_numpy(scaling.mean) * scaling.scale)
        placed = autoencoder.to(self.tokens.device)
        state = TrainingState.start(placed, self.recipe, seed, self.codes, self.processes)
        if checkpoint is not None:
            checkpoint.resume(state)
        return Training(state, checkpoint, report, done)

    def train(self, trainings: Iterable[Training]) -> int:
        """Train each to the last step, or until a logged loss is not finite; returns how many there were.

        One is taken only when there is room for it, and let go of when it is over: where they are made as
        they are taken, no more than `side_by_side` exist at a time.
        """
        waiting, finished = iter(trainings), 0
        running: list[Training] = []
        held: list[Training] = []
        together: Round | None = None
        tokens = self._tokens_near()
        shown = sys.stderr.isatty() and self.processes.first
        with tqdm(desc="training", unit="step", disable=not shown) as bar:
            while running := self._joined(running, waiting, held):
                going = [training for training in running if not self._over(training)]
                finished += len(running) - len(going)
                running = going
                bar.total = bar.n + sum(self.steps - training.state.step for training in running)
                states = tuple(training.state for training in running)
                if together is not None and together.states != states:
                    together = None  # before others are made, which need its memory
                if states:
                    together = together or Round(states, tokens, self.recipe, self._recorder(states))
                    self._advance(running, together)
                bar.update(len(running))
        return finished

    @property
    def _plain(self) -> bool:
        """Whether each step is called: its batch comes from disk, or processes exchange its gradients."""
        return self.processes.count > 1 or isinstance(self.tokens, ShardTokens)

    def _tokens_near(self) -> KeptTokens | ShardTokens:
        """The tokens, on the GPU of training where half of its free memory holds them."""
        device = torch.device(self.tokens.device)
        if self._plain or isinstance(self.tokens, ShardTokens) or device.type != "cuda":
            return self.tokens
        return self.tokens.brought_near(free_bytes(device) // 2)

    def _recorder(self, states: Sequence[TrainingState]) -> Recorder | None:
        # A pursuit asks its device when it is done, and a lazy update how many columns it has.
        if self._plain or self.codes != ENCODER or self.recipe.lazy:
            return None
        return self.record or recorder_for([state.autoencoder for state in states])

    def _joined(
        self, running: list[Training], waiting: Iterator[Training], held: list[Training]
    ) -> list[Training]:
        """Those that run, and of the waiting ones as many as find room beside them.

        One whose steps cannot be recorded would have those of all be called, launch by launch. So it is held
        until they are over, and what can be recorded until it is over.
        """
        if running and held:
            return running
        joined = list(running)
        while self._has_room(joined):
            found = held.pop() if held else next(waiting, None)
            if found is None:
                break
            if joined and self._is_recorded(found) != self._is_recorded(joined[0]):
                held.append(found)
                break
            joined.append(found)
        return joined

    def _is_recorded(self, training: Training) -> bool:
        return self._recorder([training.state]) is not None

    def _has_room(self, running: list[Training]) -> bool:
        """Whether one more may run beside these."""
        device = torch.device(self.tokens.device)
        # Free memory differs between processes, which must train the same ones.
        if self.side_by_side is not None or self._plain or device.type != "cuda":
            return len(running) < (self.side_by_side or 1)
        autoencoders = [training.state.autoencoder for training in running]
        return one_more(autoencoders, self.recipe.batch_size, free_bytes(device))

    def _over(self, training: Training) -> bool:
        """Whether it has come to its end, to which it is then brought."""
        state = training.state
        if state.step < self.steps and state.finite:
            return False
        state.autoencoder.rescale(self.tokens.normalisation.scale)
        state.autoencoder.settle()
        if training.done is not None:
            training.done(state)
        return True

    def _advance(self, running: list[Training], together: Round) -> None:
        """One step of each, and what follows it."""
        rates = [learning_rate(training.state.step, self.steps, self.recipe) for training in running]
        for training, (batch, rebuilt) in zip(running, together.step(rates), strict=True):
            training.state.step += 1
            self._after_step(training, batch, rebuilt)

    def _after_step(self, training: Training, batch: Tensor, reconstruction: Tensor) -> None:
        """Log, resample, grow and checkpoint where the step that was just made is one for that."""
        state, recipe, cadence = training.state, self.recipe, self.cadence
        last = state.step == self.steps
        if last or _due(cadence.log_every, state.step):
            state.log_step(batch, reconstruction)
            if training.report is not None and self.processes.first:
                training.report(state.rows[-1])
        in_time = state.step <= recipe.resample_until * self.steps and (recipe.resample_at_end or not last)
        if in_time and _due(recipe.resample_every, state.step):
            resample(state, batch, recipe)
        share = growth_share(state.step, self.steps, recipe)
        if share and state.autoencoder.decoder.grows and self.codes == ENCODER:
            # The same tokens in all processes that train together, which then grow alike.
            drawn = self.tokens.draw(state.resampling, state.step, BATCHES * recipe.batch_size)
            grow(state, self.tokens.batch(drawn), share)
        keep = _due(cadence.checkpoint_every, state.step)
        if last:
            keep = cadence.checkpoint_last and state.finite
        if keep and training.checkpoint is not None:
            training.checkpoint.save(state)


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _start_at(parent: SparseAutoencoder, autoencoder: SparseAutoencoder, scale: float) -> None:
    """Start at the parent's entries on the mask, at unit norm, and at its biases in units of training."""
    decoder = autoencoder.decoder
    assert isinstance(decoder, Entries) and decoder.rows is not None
    entries = parent.dictionary().columns(torch.arange(parent.n)).gather(1, decoder.rows.long())
    decoder.values.copy_(unit_columns(entries))
    autoencoder.b_enc.copy_(parent.b_enc * scale)
    autoencoder.b_dec.copy_(parent.b_dec * scale)
