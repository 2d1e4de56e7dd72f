"""Several processes that train one autoencoder: each takes its share of every batch.

All hold the same parameters, moments and streams, and draw the same positions. A step sums the gradients over
the processes, d·n values of the columns, n and m of the biases, and everything after that is the same
arithmetic in each. What a resampling needs of the batch is gathered when there is one. So a training by any
number of processes is one of the same global batch, up to the order of sums.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as collective
from torch import Tensor

from expander_sae.errors import UserError

_PORTS = 20000
"""The first of as many ports, of which a SLURM job takes one by its number."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; `rank` 0 tells and writes.

    Every method but the properties is called by all of them, in the same order.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of the positions or samples [B, …] of a batch.

        Raises:
            UserError: B is no multiple of the number of processes: their means would differ in weight.
        """
        if len(batch) % self.count:
            expected = f"a multiple of the {self.count} processes"
            raise UserError(f"training.batch_size: found {len(batch)}, expected {expected}")
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Make each `.grad`, of a mean over the share, that of the mean over the batch, in place."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                collective.all_reduce(parameter.grad.div_(self.count))

    def mean(self, values: list[float]) -> list[float]:
        """The means over the processes of numbers that are means over a share each."""
        if self.count == 1:
            return values
        return [float(value) for value in self.total(torch.tensor(values, dtype=torch.float64)) / self.count]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes; the tensor itself stays as it is."""
        if self.count == 1:
            return tensor
        summed = _on_wire(tensor).clone()
        collective.all_reduce(summed)
        return summed.to(tensor.device)

    def gathered(self, share: Tensor) -> Tensor:
        """The samples [B, …] of the batch, of which each process has its share."""
        if self.count == 1:
            return share
        sent = _on_wire(share).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.count)]
        collective.all_gather(parts, sent)
        return torch.cat(parts).to(share.device)

    def require_equal(self, what: str, found: Any) -> None:
        """Raise `UserError` in all of them where they do not have the same JSON value."""
        if self.count == 1:
            return
        every: list[Any] = [None] * self.count
        collective.all_gather_object(every, found)
        for rank, other in enumerate(every):
            if other != every[0]:
                raise UserError(f"{what}: found {other!r} in process {rank}, expected {every[0]!r}, as in 0")


ALONE = Processes()


def _on_wire(tensor: Tensor) -> Tensor:
    """Where the backend takes it: NCCL has no tensors of the CPU."""
    gpu = collective.get_backend() == "nccl"
    return tensor.to(torch.device("cuda", torch.cuda.current_device())) if gpu else tensor


def joined(device: str | torch.device = "auto") -> tuple[Processes, str | torch.device]:
    """The processes that `torchrun` or `srun` has started with this one, and this one's device.

    A process group that exists is taken as it is. With several on a machine that has GPUs, each takes the one
    of its local rank where `device` is ``auto`` or ``cuda``. NCCL is spoken between GPUs, otherwise gloo.

    Raises:
        UserError: nothing has started several processes.
    """
    rank, count, local = _started()
    if str(device) in ("auto", "cuda") and torch.cuda.is_available():
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if not collective.is_initialized():
        gpu = torch.device("cpu" if device == "auto" else device).type == "cuda"
        collective.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=count)
    return Processes(collective.get_rank(), collective.get_world_size()), device


def _started() -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine), as torchrun or srun says."""
    said = os.environ
    if {"RANK", "WORLD_SIZE"} <= said.keys():
        return int(said["RANK"]), int(said["WORLD_SIZE"]), int(said.get("LOCAL_RANK", 0))
    if {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"} <= said.keys():
        nodes = said.get("SLURM_STEP_NODELIST") or said.get("SLURM_JOB_NODELIST", "localhost")
        said.setdefault("MASTER_ADDR", first_node(nodes))
        said.setdefault("MASTER_PORT", str(_PORTS + int(said["SLURM_JOB_ID"]) % _PORTS))
        return int(said["SLURM_PROCID"]), int(said["SLURM_NTASKS"]), int(said.get("SLURM_LOCALID", 0))
    if collective.is_initialized():
        return collective.get_rank(), collective.get_world_size(), 0
    raise UserError("data_parallel: found one process, expected several by torchrun or srun")


def first_node(nodes: str) -> str:
    """The first name of a list as SLURM writes it.

    Examples:
        >>> first_node("gpu[07-09,12],login"), first_node("a1,a2"), first_node("rack2-n[3,5]-ib")
        ('gpu07', 'a1', 'rack2-n3-ib')
    """
    found = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\])?([^,\[]*)", nodes)
    assert found is not None
    return "".join(part or "" for part in found.groups())
