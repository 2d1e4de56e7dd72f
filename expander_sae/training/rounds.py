"""A round: one step of each of some trainings, on tensors that stay: a GPU can repeat it as one graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from expander_sae.study.recipes import Recipe
from expander_sae.training.normalisation import KeptTokens
from expander_sae.training.recording import Branches, Call, Recorder
from expander_sae.training.shard_pool import ShardTokens
from expander_sae.training.staging import Staged
from expander_sae.training.step import TrainingState, train_step
from expander_sae.training.supply import AsDrawn, Supply, supply_of


class Round:
    """One step of each of these, which share tokens and a recipe.

    Each draws its batches from its own stream, and reads its process's share of them. Streams that are equal
    now, at equal steps, stay so, and share each batch that is read. What a step needs from the host,
    positions and learning rates, is written to tensors that stay; the rest (`_body`) is the same operations
    each time, with or without a recorder.

    Args:
        record: makes the body repeatable, see `recording`; None calls it each time, as it must be with
            several processes and with streamed tokens.
    """

    def __init__(
        self,
        states: Sequence[TrainingState],
        tokens: KeptTokens | ShardTokens,
        recipe: Recipe,
        record: Recorder | None = None,
    ) -> None:
        self.states = tuple(states)
        self._recipe, self._tokens = recipe, tokens
        self._stream_of, self._first = _equal_streams(self.states)
        self._supply = self._supply_of(tokens)
        assert record is None or not isinstance(self._supply, AsDrawn), "such batches do not stay in place"
        device = self.states[0].fired.device
        # Autograd has streams of its own: steps that need it are not dealt to branches.
        alone = [state.autoencoder.free is None for state in self.states]
        self._together, self._one_by_one = Branches(sum(alone), device), Branches(1, device)
        self._alone = alone
        self._batches: list[Tensor] = []
        self._rebuilt: list[Tensor] = []
        self._rates: Staged | None = None
        self._repeat: Call | None = None
        if record is not None:
            self._rates = _held_rates(self.states, device)
            self._write_rates(self._rates)
            self._repeat = record(self._body, [each for state in self.states for each in state.changing()])

    def step(self, rates: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """One step of each at its learning rate; returns (batch, ĥ) of each, overwritten by the next step.

        Who calls this counts the steps.
        """
        self._supply.load(self._drawn())
        for state, rate in zip(self.states, rates, strict=True):
            if self._rates is None:
                state.set_rate(rate)
            state.rate = rate
        if self._rates is not None:
            self._write_rates(self._rates)
        (self._repeat or self._body)()
        return list(zip(self._batches, self._rebuilt, strict=True))

    def _supply_of(self, tokens: KeptTokens | ShardTokens) -> Supply:
        if isinstance(tokens, ShardTokens) or any(state.processes.count > 1 for state in self.states):
            return AsDrawn(tokens)
        leaders = [self.states[number].batches for number in self._first]
        return supply_of(tokens, self._recipe.batch_size, leaders)

    def _drawn(self) -> Iterator[Tensor]:
        """The positions of each batch that is read. Those who share one draw it as well, for their stream."""
        for number, state in enumerate(self.states):
            drawn = self._tokens.draw(state.batches, state.step, self._recipe.batch_size)
            if number in self._first:
                yield state.processes.share(drawn)

    def _write_rates(self, rates: Staged) -> None:
        found = [rate for state in self.states for rate in state.rates]
        rates.write(torch.tensor(found, dtype=rates.held.dtype))

    def _body(self) -> None:
        read = self._supply.batches()
        self._batches = [read[number] for number in self._stream_of]
        self._rebuilt = list(self._batches)
        calls = [partial(self._train, number) for number in range(len(self.states))]
        self._together([call for call, alone in zip(calls, self._alone, strict=True) if alone])
        self._one_by_one([call for call, alone in zip(calls, self._alone, strict=True) if not alone])

    def _train(self, number: int) -> None:
        self._rebuilt[number] = train_step(self.states[number], self._batches[number], self._recipe)


def _equal_streams(states: Sequence[TrainingState]) -> tuple[list[int], list[int]]:
    """(the number of each state's stream among the different ones, the first state of each of these)."""
    found: dict[tuple[int, bytes], int] = {}
    numbers: list[int] = []
    first: list[int] = []
    for place, state in enumerate(states):
        key = state.step, state.batches.get_state().numpy().tobytes()
        if key not in found:
            found[key] = len(first)
            first.append(place)
        numbers.append(found[key])
    return numbers, first


def _held_rates(states: Sequence[TrainingState], device: torch.device) -> Staged:
    """One tensor for the rates of all, from which each Adam reads its own; on CUDA it reads float32."""
    dtype = torch.float32 if device.type == "cuda" else torch.float64
    staged = Staged(sum(len(state.rates) for state in states), dtype=dtype, device=device)
    for state, own in zip(states, staged.held.split([len(state.rates) for state in states]), strict=True):
        state.read_rates(own)
    return staged
