"""Parameters of columns in a precision: rounded, as the tensors of a weights file, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.model import rounding, stored_values
from expander_sae.model.precisions import FLOAT32, PRECISIONS, Precision
from expander_sae.storage.bit_packing import packed_bytes


def of_encoder(name: str) -> str:
    """What a free encoder's parameter is called beside the decoder's."""
    return "encoder" if name == "values" else f"encoder_{name}"


def _zero(values: Tensor, valid: Tensor) -> Tensor:
    """bool [n]: columns that have entries, all of them 0. Padding can hold anything."""
    return ((values == 0) | ~valid).all(dim=1) & valid.any(dim=1)


class HeldParameters(nn.Module):
    """Parameters of n columns, a row for each, as a weights file holds them.

    Attributes:
        precision: of the weights file, whose levels the parameters are on (model/rounding.py): those of a
            decoder are whole numbers, since its columns are brought to unit norm, those of a free encoder
            multiples of a step for each column.
        rounds: whether the parameters are not there yet, and are rounded each time that they are used.
        free: whether the columns are used at their own norm.
    """

    def __init__(self, free: bool) -> None:
        super().__init__()
        self.free, self.rounds = free, False
        self.precision = PRECISIONS[FLOAT32]

    @property
    def stepped(self) -> bool:
        """Whether the lengths of the rows matter, so that a file holds the step of each."""
        return self.free

    def held_in(self, name: str) -> Precision:
        """The precision of one parameter."""
        return self.precision

    def valid_of(self, name: str) -> Tensor | None:
        """Which entries of a parameter are no padding, bool of its shape; None: all."""
        return None

    @torch.no_grad()
    def round_to(self, precision: Precision) -> None:
        """Bring the parameters to what a file of this precision holds.

        A parameter of one dimension, which is no column, is rounded to bfloat16.

        Raises:
            UserError: a column of zeros, and the precision has no level 0.
        """
        used, self.precision, self.rounds = self.rounds, precision, False
        for name, parameter in self.named_parameters():
            precision = self.held_in(name)
            if not precision.levels or parameter.ndim < 2:
                if precision.name != FLOAT32:
                    parameter.copy_(parameter.to(torch.bfloat16))
                continue
            valid = self.valid_of(name)
            zero = (parameter == 0).all(dim=1) if valid is None else _zero(parameter, valid)
            if precision.levels % 2 == 0 and not used and zero.any():
                found = f"column {int(zero.nonzero()[0])} is zero, for which {precision.name} has no level"
                raise UserError(f"precision: {found}; expected int8 or wider")
            shares = rounding.SOME if used else rounding.MANY
            levels, step = rounding.closest(parameter.detach(), valid, precision, shares)
            parameter.copy_(levels * step if self.stepped else levels)
            if self.stepped:
                self._set_step(name, step)

    def _set_step(self, name: str, step: Tensor) -> None:
        self.register_buffer(stored_values.step_of(name), step.flatten(), persistent=False)

    def step_of(self, name: str) -> Tensor | None:
        """The step of each column of a free encoder's parameter [n]; None where there is none."""
        return dict(self.named_buffers()).get(stored_values.step_of(name))

    def tensors(self) -> dict[str, Tensor]:
        """What a weights file holds of the columns: levels and steps, where the precision has some."""
        held: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            held |= self._tensors_of(name, parameter.detach())
        return held

    def _tensors_of(self, name: str, values: Tensor) -> dict[str, Tensor]:
        valid, step, label = self.valid_of(name), self.step_of(name), of_encoder(name) if self.free else name
        precision = self.held_in(name)
        if not precision.levels or values.ndim < 2:
            values = values if valid is None else values[valid]
            return {name: values if precision.name == FLOAT32 else stored_values.exact(label, values)}
        levels = values if step is None else values / step[:, None]
        kept = {name: stored_values.coded(label, levels, valid, precision)}
        return kept | ({} if step is None else {stored_values.step_of(name): step.to(torch.bfloat16)})

    def tensor_names(self) -> list[str]:
        """The names of `tensors` that are the columns' own."""
        names = [name for name, _ in self.named_parameters()]
        return names + [stored_values.step_of(name) for name in names]

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over `tensors`; `KeyError`, `ValueError` or `RuntimeError` where they do not fit."""
        for name, parameter in self.named_parameters():
            valid, step, precision = self.valid_of(name), None, self.held_in(name)
            found = tensors[name]
            if precision.levels and parameter.ndim >= 2:
                count = parameter.numel() if valid is None else int(valid.sum())
                found = stored_values.decoded(name, found, count, precision).to(parameter.dtype)
                found = found.reshape(parameter.shape) if valid is None else found
                if self.stepped:
                    step = stored_values.steps(tensors[stored_values.step_of(name)], len(parameter))
                    self._set_step(name, step.to(parameter.dtype))
            elif precision.name != FLOAT32:
                found = stored_values.widened(name, found)
            if found.shape != (parameter.shape if valid is None else (int(valid.sum()),)):
                raise ValueError(f"{name} has shape {list(tensors[name].shape)}")
            if valid is None:
                parameter.copy_(found)
            else:
                parameter[valid] = found
            if step is not None:
                parameter.mul_(step.to(parameter)[:, None])

    @property
    def count(self) -> int:
        """Number of learned values."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def value_bytes(self) -> int:
        """Bytes of the values in a weights file, without steps."""
        return sum(self._bytes_of(name, parameter) for name, parameter in self.named_parameters())

    def _bytes_of(self, name: str, values: Tensor) -> int:
        """Of one parameter: what is no column is in bfloat16 beside levels, as in `round_to`."""
        valid, precision = self.valid_of(name), self.held_in(name)
        bits = precision.bits
        if precision.name == FLOAT32:
            bits = 8 * values.element_size()
        elif values.ndim < 2:
            bits = 16
        return packed_bytes(values.numel() if valid is None else int(valid.sum()), bits)

    @property
    def step_bytes(self) -> int:
        """Bytes of the steps of a free encoder's columns."""
        stepped = self.stepped and self.precision.levels
        return (
            2 * sum(len(parameter) for parameter in self.parameters() if parameter.ndim > 1) if stepped else 0
        )
