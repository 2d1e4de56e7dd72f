"""Shards as a pool that training reads as it goes, so that their activations lie on disk once.

The order of tokens follows from the seed alone. In each epoch the shards, and the row groups of a shard, come
in an order of their own. As many row groups as the buffer has room for are its next filling, of which every
batch takes tokens at random without repeating any. Which filling a step reads, and which tokens of it, is
worked out from the step's number, so that a training goes on exactly wherever it was stopped.

A shard is checked, every byte, when a row of it is first read.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.activations.shard_list import read_shard_list
from expander_sae.activations.shards import Rows, Shard, about_of
from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import ROW_GROUP
from expander_sae.rng import Integers
from expander_sae.storage.arrays import norms_of
from expander_sae.storage.files import digest
from expander_sae.storage.remote import Place, below, is_remote, names_in, place
from expander_sae.training.normalisation import Normalisation

BUFFER = 1 << 17
"""Tokens that are mixed at a time, by default: 300 MB at m = 576."""

FIRST = 1 << 20
"""Norm limit, scale and mean are those of the first tokens, of at most so many."""

_NAME = re.compile(r"(.+)-(\d{5,})\.(?:json|parquet)")


@dataclass(frozen=True)
class Group:
    """A row group: its shard's number, its own in the shard, its first token in the split, its tokens."""

    shard: int
    number: int
    first: int
    tokens: int


class ShardPool:
    """Shards 0, 1, 2, … of a split, in the order of their names, of which `tokens` are used (None: all).

    Args:
        folder: of files SPLIT-00000.parquet, as extraction writes them, or of their receipts; a path, or an
            address in object storage, from which a shard is fetched whole when it is its turn.
        buffer: tokens that are mixed at a time; memory grows with them.

    Attributes:
        activations: rows are read when they are sliced; norms: float64, of the first tokens (`FIRST`).

    Raises:
        UserError: no shard, one that is missing, of another width or of another model, or too few tokens.
    """

    def __init__(
        self, folder: Place, split: str = "train", tokens: int | None = None, buffer: int = BUFFER
    ) -> None:
        self.path = place(folder)
        self._files = _files(self.path, split)
        self._about = [about_of(path) for path in self._files]
        for path, about in zip(self._files, self._about, strict=True):
            for key in ("m", "model_sha256", "layer", "split", "stored"):
                if about.get(key) != self._about[0].get(key):
                    found = f"{key} {about.get(key)!r}, expected {self._about[0].get(key)!r}"
                    raise UserError(f"{path}: found {found}, as in {self._files[0]}")
        self.m: int = self._about[0]["m"]
        held = sum(about["tokens"] for about in self._about)
        self.tokens = held if tokens is None else tokens
        if not 0 < self.tokens <= held:
            raise UserError(f"{self.path}: found {held} tokens in the {split} split, expected {self.tokens}")
        self.buffer = buffer
        self.groups = _groups(self._about, self.tokens)
        self._open: tuple[int, Shard] | None = None
        self._checked: set[int] = set()
        self.activations = self
        self.shape = (self.tokens, self.m)
        self.first = min(self.tokens, FIRST)
        starts = range(0, self.first, ROW_GROUP)
        self.norms = np.concatenate([norms_of(self[a : min(a + ROW_GROUP, self.first)]) for a in starts])

    @classmethod
    def listed(cls, path: Path, tokens: int, buffer: int) -> ShardPool:
        """The first tokens of the shards of a list (`shard_list`), which have to be these still."""
        folder, split, hashes = read_shard_list(path)
        pool = cls(folder, split, tokens, buffer)
        for number in range(pool.groups[-1].shard + 1):
            expected = hashes[number] if number < len(hashes) else "none"
            if (found := pool._about[number]["sha256"]) != expected:
                where = f"{pool._files[number]}: found rows of sha256 {found}"
                raise UserError(f"{where}, expected {expected}, as {path} says; remove that list")
        return pool

    def digest(self) -> str:
        """Hash of the shards that hold the tokens, of their number and of the buffer."""
        used = self._about[: self.groups[-1].shard + 1]
        shards = [about["sha256"] for about in used]
        return digest({"tokens": self.tokens, "shards": shards, "buffer": self.buffer})

    def __getitem__(self, rows: slice) -> np.ndarray:
        """float32 [stop − start, m]: rows of the split, in order."""
        start, stop, _ = rows.indices(self.tokens)
        place = bisect_right(self.groups, start, key=lambda group: group.first) - 1
        parts = []
        while start < stop:
            group = self.groups[place]
            end = min(stop, group.first + group.tokens)
            parts.append(self.read(group).activation[start - group.first : end - group.first])
            start, place = end, place + 1
        return np.concatenate(parts)

    def read(self, group: Group) -> Rows:
        """The rows of a group; its shard is checked first, if none of it was read yet."""
        if self._open is None or self._open[0] != group.shard:
            path = self._files[group.shard]
            shard = Shard(path, verify=group.shard not in self._checked)
            if shard.about != self._about[group.shard]:
                raise UserError(f"{path}: changed while it was read, expected the shard of the beginning")
            if not is_remote(shard.path):  # what is fetched anew is checked anew
                self._checked.add(group.shard)
            self._open = group.shard, shard
        rows = self._open[1].row_group(group.number)
        start = group.number * ROW_GROUP
        if len(rows) != min(ROW_GROUP, self._about[group.shard]["tokens"] - start):
            found = f"found a row group of {len(rows)} tokens, expected {ROW_GROUP}"
            raise UserError(f"{self._files[group.shard]}: {found}; extract it again")
        return Rows(*(column[: group.tokens] for column in (*rows.of_tokens, rows.activation)))


class ShardTokens:
    """The tokens of shards in units of training, in batches of `device` and `dtype`; see `Session.tokens`.

    A filling's tokens within the norm limit are dealt out in a random order; where some are not, a few of the
    others come twice in their stead, so that each filling has the same number of batches in every run.
    """

    def __init__(
        self,
        pool: ShardPool,
        normalisation: Normalisation,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.pool, self.normalisation, self.device, self.dtype = pool, normalisation, device, dtype
        self._filling: tuple[tuple[int, ...], list[Group], np.ndarray, np.ndarray] | None = None
        self._order = lru_cache(maxsize=2)(self._fillings)

    def __len__(self) -> int:
        return self.pool.tokens

    def draw(self, stream: torch.Generator, step: int, size: int) -> Tensor:
        """int64 [size]: the rows of the split of which the step's batch is made; they are then at hand."""
        seed, epoch = stream.initial_seed(), 0
        while step >= (batches := self._order(seed, epoch, size)[1])[-1]:
            step, epoch = step - batches[-1], epoch + 1
        number = bisect_right(batches, step)
        place = step - (batches[number - 1] if number else 0)
        kept = self._fill((seed, epoch, number), self._order(seed, epoch, size)[0][number])
        picked = np.arange(place * size, (place + 1) * size) % len(kept)
        return torch.from_numpy(kept[picked])

    def batch(self, positions: Tensor) -> Tensor:
        """[B, m] at rows of the split that `draw` has just returned."""
        assert self._filling is not None
        _, groups, activations, _ = self._filling
        firsts = np.array([group.first for group in groups])
        offsets = np.cumsum([0, *(group.tokens for group in groups)])
        wanted = positions.numpy()
        group = np.searchsorted(firsts, wanted, side="right") - 1
        rows = torch.from_numpy(offsets[group] + wanted - firsts[group])
        found = torch.from_numpy(activations).index_select(0, rows).to(self.dtype)
        return (found * self.normalisation.scale).to(self.device)

    def centred(self, start: int, end: int) -> Tensor:
        raise UserError("support: found one that is fitted to all tokens, expected one that is trained")

    def _fillings(self, seed: int, epoch: int, size: int) -> tuple[list[list[Group]], list[int]]:
        """The row groups of each filling of an epoch, and how many batches have been dealt out after it."""
        stream = Integers(seed, f"batches/epoch{epoch}")
        shards: list[list[Group]] = [[] for _ in range(self.pool.groups[-1].shard + 1)]
        for group in self.pool.groups:
            shards[group.shard].append(group)
        order = [
            shards[shard][place]
            for shard in stream.permutation(len(shards)).tolist()
            for place in stream.permutation(len(shards[shard])).tolist()
        ]
        room = max(1, self.pool.buffer // ROW_GROUP)
        fillings = [order[start : start + room] for start in range(0, len(order), room)]
        if len(fillings) > 1 and sum(group.tokens for group in fillings[-1]) < size:
            fillings[-2:] = [fillings[-2] + fillings[-1]]
        # A batch of more tokens than there are takes some of them twice.
        counts = [max(1, sum(group.tokens for group in filling) // size) for filling in fillings]
        return fillings, list(accumulate(counts))

    def _fill(self, name: tuple[int, int, int], groups: Sequence[Group]) -> np.ndarray:
        """The kept rows of a filling as they are dealt out; its activations are then at hand."""
        if self._filling is None or self._filling[0] != name:
            self._filling = None  # what it held is free before the next one is read
            ordered = sorted(groups, key=lambda group: group.first)
            tokens = sum(group.tokens for group in ordered)
            activations = np.empty((tokens, self.pool.m), np.float32)
            kept, filled = [], 0
            for group in ordered:
                rows = self.pool.read(group).activation
                activations[filled : filled + group.tokens] = rows
                within = np.flatnonzero(norms_of(rows) <= self.normalisation.limit)
                kept.append(group.first + within)
                filled += group.tokens
            seed, epoch, number = name
            places = np.concatenate(kept)
            if not len(places):
                limit = f"norms of at most {self.normalisation.limit:g}"
                raise UserError(
                    f"{self.pool.path}: found {tokens} tokens in a row above it, expected {limit}"
                )
            order = Integers(seed, f"batches/epoch{epoch}/filling{number}").permutation(len(places))
            self._filling = name, ordered, activations, places[order]
        return self._filling[3]


def _files(folder: Place, split: str) -> list[Place]:
    numbered: dict[int, Place] = {}
    for name in names_in(folder):
        named = _NAME.fullmatch(name)
        if named and named[1] == split:
            numbered[int(named[2])] = below(folder, name)
    if sorted(numbered) != list(range(len(numbered))) or not numbered:
        found = f"shards {sorted(numbered)[:9]}" if numbered else "no shard"
        raise UserError(f"{folder}: found {found}, expected {split}-00000.parquet and all that follow it")
    return [numbered[number] for number in range(len(numbered))]


def _groups(abouts: Sequence[dict[str, Any]], tokens: int) -> list[Group]:
    """The row groups that hold the first tokens, the last one as far as it does."""
    groups: list[Group] = []
    first = 0
    for shard, about in enumerate(abouts):
        for number, start in enumerate(range(0, about["tokens"], ROW_GROUP)):
            size = min(ROW_GROUP, about["tokens"] - start, tokens - first)
            if size <= 0:
                return groups
            groups.append(Group(shard, number, first, size))
            first += size
    return groups
