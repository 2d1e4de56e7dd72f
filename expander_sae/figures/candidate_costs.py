"""What a dictionary costs in time: estimates by the fitted model of `cost/`, for one core of a named CPU.

Tables of measurements hold no times, since these are of a machine and not of a dictionary.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from expander_sae.cost.time_model import CPU_FILE, DENSE, Machine, Shape
from expander_sae.figures.candidates import Candidate
from expander_sae.masks import supports
from expander_sae.masks.support import SPARSE
from expander_sae.pursuit.inference import ENCODER

BATCH = 256
"""Tokens of a call, as in training."""


@lru_cache(maxsize=1)
def machine() -> Machine:
    """The CPU that the model was fitted on."""
    return Machine.read(CPU_FILE)


def microseconds(one: Candidate) -> float | None:
    """Of coding one token; None of a decoder or an encoder that the model does not know."""
    shape, backend = _shape(one), _backend(one)
    if backend is None or one.cell.encoder != "tied":
        return None
    task = "omp" if one.inference == "omp" else "encode_topk"
    return machine().seconds(task, backend, shape) / BATCH * 1e6


def training_seconds(one: Candidate) -> float | None:
    """Of all its steps, after the activations are there; 0 of what nobody trained.

    One that starts from a dense run takes that run's time as well. None, too, where it was trained with codes
    by a pursuit: tables do not say for how many steps.
    """
    shape, backend = _shape(one), _backend(one)
    if one.group == "untrained":
        return 0.0
    if backend is None or one.cell.encoder != "tied" or one.cell.codes != ENCODER:
        return None
    step = machine().seconds("train_step", backend, shape)
    if supports.described(one.cell.support).parent:
        step += machine().seconds("train_step", DENSE, replace(shape, d=shape.m))
    return step * one.cell.steps


def _shape(one: Candidate) -> Shape:
    cell = one.cell
    return Shape(cell.m, cell.n, cell.m if one.group == "untrained" else cell.d, cell.k, BATCH)


def _backend(one: Candidate) -> str | None:
    decoder = supports.described(one.cell.support).decoder
    # What nobody trained is computed with as dense columns, however it is stored.
    if decoder == supports.DENSE or one.group == "untrained":
        return DENSE
    return machine().backend("auto") if decoder == SPARSE else None
