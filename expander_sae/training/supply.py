"""The batches of a round's trainings, read from tokens that lie near, or brought near ahead of time.

A supply has tensors that stay. `load` fills them before each step, and `batches`, which is part of the step,
reads them and nothing else. Only the batches of `AsDrawn` are new ones each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from expander_sae.training.normalisation import KeptTokens
from expander_sae.training.shard_pool import ShardTokens
from expander_sae.training.staging import Staged


class Supply(Protocol):
    def load(self, drawn: Iterable[Tensor]) -> None:
        """Make ready what stands at these positions, int64 [B] on the CPU, one tensor for each batch.

        They are drawn as they are asked for, and all of them are.
        """

    def batches(self) -> list[Tensor]:
        """The batches [B, m] that were made ready, on the device of training."""


def supply_of(tokens: KeptTokens, size: int, streams: Sequence[torch.Generator]) -> Supply:
    """The batches of `size` tokens that the streams will draw, one for each stream.

    Tokens that lie where training computes are gathered by the step itself; for a GPU, whose memory would not
    hold them, a thread gathers and copies those of the next step meanwhile.
    """
    if tokens.is_near:
        return Gathered(tokens, size, len(streams))
    return ReadAhead(tokens, size, streams)


class AsDrawn:
    """Batches are what is loaded, each before the next is drawn: streamed tokens have no other at hand."""

    def __init__(self, tokens: KeptTokens | ShardTokens) -> None:
        self._tokens = tokens
        self._batches: list[Tensor] = []

    def load(self, drawn: Iterable[Tensor]) -> None:
        self._batches = [self._tokens.batch(positions) for positions in drawn]

    def batches(self) -> list[Tensor]:
        return self._batches


class Gathered:
    """Positions are what is loaded."""

    def __init__(self, tokens: KeptTokens, size: int, count: int) -> None:
        self._tokens = tokens
        self._positions = Staged(count, size, dtype=torch.int64, device=tokens.activations.device)

    def load(self, drawn: Iterable[Tensor]) -> None:
        self._positions.write(torch.stack(list(drawn)))

    def batches(self) -> list[Tensor]:
        return [self._tokens.batch(positions) for positions in self._positions.held]


class ReadAhead:
    """Batches are what is loaded: a thread has read them, since what a stream draws next is known beforehand.

    Two places are filled in turn: while a step reads one, the next batches are copied to the other.
    """

    def __init__(self, tokens: KeptTokens, size: int, streams: Sequence[torch.Generator]) -> None:
        self._device, self._size = torch.device(tokens.device), size
        self._source = replace(tokens, device="cpu")
        self._streams = [torch.Generator().set_state(stream.get_state()) for stream in streams]
        shape = len(streams), size, tokens.activations.shape[1]
        on_gpu = self._device.type == "cuda"
        self._host = torch.empty(shape, dtype=tokens.dtype, pin_memory=on_gpu)
        self._places = [torch.empty(shape, dtype=tokens.dtype, device=self._device) for _ in range(2)]
        self._held = torch.empty(shape, dtype=tokens.dtype, device=self._device)
        self._copying = torch.cuda.Stream(self._device) if on_gpu else None
        self._reader = ThreadPoolExecutor(max_workers=1)
        self._turn = 0
        self._next = self._ask()

    def load(self, drawn: Iterable[Tensor]) -> None:
        found, (expected, place) = list(drawn), self._next.result()
        assert all(map(torch.equal, expected, found)), "a stream was drawn from by somebody else"
        self._held.copy_(self._places[place])
        if self._copying is not None:
            # What is read into this place next must wait until it was copied from.
            self._copying.wait_stream(torch.cuda.current_stream(self._device))
        self._next = self._ask()

    def batches(self) -> list[Tensor]:
        return list(self._held)

    def _ask(self) -> Future[tuple[list[Tensor], int]]:
        """Let the thread read the next batches into the place whose turn it is."""
        # Of kept tokens a stream alone says what is drawn: any step will do.
        drawn = [self._source.draw(stream, 0, self._size) for stream in self._streams]
        self._turn = 1 - self._turn
        return self._reader.submit(self._read, drawn, self._turn)

    def _read(self, drawn: list[Tensor], place: int) -> tuple[list[Tensor], int]:
        for positions, batch in zip(drawn, self._host, strict=True):
            batch.copy_(self._source.batch(positions))
        with self._on_own_stream():
            self._places[place].copy_(self._host, non_blocking=True)
        if self._copying is not None:
            self._copying.synchronize()
        return drawn, place

    def _on_own_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._copying is None else torch.cuda.stream(self._copying)
