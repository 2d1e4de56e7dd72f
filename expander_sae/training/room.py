"""How many trainings find room on a GPU beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from expander_sae.machine.piece_sizes import STEPS_TOGETHER
from expander_sae.model.autoencoder import SparseAutoencoder

_COPIES = 5
"""Of the parameters, in a step: gradients, unit columns, their gradients, and what these pass through."""
_ROWS = 8
"""Of the batch, in a step: batch, centred, as panels, rebuilt, error, and what the gradients need."""
_SCORES = 12
"""Bytes a score, where all are kept: as numbers, and two codes written out."""


def bytes_of_state(autoencoder: SparseAutoencoder) -> int:
    """Parameters, both moments, counts and row indices."""
    size = sum(each.numel() * each.element_size() for each in autoencoder.parameters())
    return 4 * size + 8 * autoencoder.n


def bytes_of_step(autoencoder: SparseAutoencoder, batch: int) -> int:
    """What a step of `batch` samples takes at most beside the state, roughly and rather too much."""
    parameters = sum(each.numel() * each.element_size() for each in autoencoder.parameters())
    columns = [each for each in (autoencoder.decoder, autoencoder.free) if each is not None]
    backends = [None if (found := each.kernels()) is None else found.__name__ for each in columns]
    dense = any(name is None or name.endswith("densified") for name in backends)
    scores = _SCORES * batch * autoencoder.n + 4 * autoencoder.n * autoencoder.m if dense else 0
    places = 24 * batch * autoencoder.k
    return _COPIES * parameters + _ROWS * 4 * batch * autoencoder.m + scores + places


def one_more(autoencoders: Sequence[SparseAutoencoder], batch: int, free: int) -> bool:
    """Whether one more autoencoder, like the largest of these, finds room beside them.

    The states of these are in memory; `free` bytes must hold the steps of all, and a state.
    """
    if len(autoencoders) >= STEPS_TOGETHER:
        return False
    if not autoencoders:
        return True
    steps = [bytes_of_step(each, batch) for each in autoencoders]
    return sum(steps) + max(steps) + max(map(bytes_of_state, autoencoders)) <= free


def free_bytes(device: torch.device) -> int:
    """Memory of a CUDA device that this process may still use, what PyTorch holds unused included."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused
