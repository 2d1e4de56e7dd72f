"""What a dictionary costs in time: estimates by the fitted model of `cost/`, for one core of a named CPU.

Tables of measurements hold no times, since these are of a machine and not of a dictionary.
"""

from __future__ import annotations

from functools import lru_cache

from expander_sae.cost.time_model import CPU_FILE, Machine
from expander_sae.figures.candidates import Candidate
from expander_sae.masks import supports
from expander_sae.masks.shapes import Piece
from expander_sae.pursuit.inference import ENCODER

BATCH = 256
"""Tokens of a call, as in training."""


@lru_cache(maxsize=1)
def machine() -> Machine:
    """The CPU that the model was fitted on."""
    return Machine.read(CPU_FILE)


def microseconds(one: Candidate) -> float | None:
    """Of coding one token; None of a decoder, an encoder or an inference that the model does not know."""
    pieces = _pieces(one)
    if not pieces or one.cell.encoder != "tied":
        return None
    seconds = machine().coding(one.inference, machine().backend("auto"), pieces, one.cell.k, BATCH)
    return None if seconds is None else seconds / BATCH * 1e6


def training_seconds(one: Candidate) -> float | None:
    """Of all its steps, after the activations are there; 0 of what nobody trained.

    One that starts from a dense run takes that run's time as well. None, too, where it was trained with codes
    by a pursuit: tables do not say for how many steps.
    """
    cell, pieces = one.cell, _pieces(one)
    if one.group == "untrained":
        return 0.0
    if not pieces or cell.encoder != "tied" or cell.codes != ENCODER:
        return None
    begun = [(Piece(cell.m, cell.n, cell.m),)] if supports.described(cell.support).parent else []
    backend = machine().backend("auto")
    return cell.steps * sum(
        machine().together("train_step", backend, each, cell.k, BATCH) for each in (pieces, *begun)
    )


def _pieces(one: Candidate) -> tuple[Piece, ...]:
    """The matrices that its columns are computed with; none where these are not known."""
    cell, known = one.cell, supports.described(one.cell.support)
    if one.group == "untrained":  # computed with as dense columns, however it is stored
        return (Piece(cell.m, cell.n, cell.m),)
    return () if known.imported else known.computed_with(cell.m, cell.n, cell.d)
