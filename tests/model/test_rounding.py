"""Columns on levels: the nearest ones, the closest of a column, and gradients that pass the rounding."""

from __future__ import annotations

import itertools

import pytest
import torch

from expander_sae.kernels.autograd import unit_columns
from expander_sae.model.precisions import PRECISIONS, Precision
from expander_sae.model.rounding import SOME, closest, nearest, one_step, straight_through
from expander_sae.rng import torch_generator

WITH_LEVELS = [one for one in PRECISIONS.values() if one.levels]


def levels_of(precision: Precision) -> list[int]:
    top = precision.top
    return list(range(-top, top + 1, 1 if precision.levels % 2 else 2))


def columns(n: int, w: int, name: str = "columns") -> torch.Tensor:
    return torch.randn(n, w, generator=torch_generator(0, name))


@pytest.mark.parametrize("precision", WITH_LEVELS, ids=lambda one: one.name)
def test_there_are_as_many_levels_as_the_bits_hold(precision: Precision) -> None:
    known = levels_of(precision)
    assert len(known) == precision.levels <= 2**precision.bits
    assert known == [-level for level in reversed(known)]
    spread = torch.linspace(-1.5 * precision.top, 1.5 * precision.top, 1001)
    distances = (spread[:, None] - torch.tensor(known)).abs()
    found = nearest(spread, precision)
    assert set(found.tolist()) == set(map(float, known))
    assert torch.allclose((spread - found).abs(), distances.min(dim=1).values, atol=1e-4)


def test_the_closest_levels_are_those_of_an_exhaustive_search() -> None:
    """Of three entries in two bits there are 64: no other has a cosine that is much larger."""
    precision, values = PRECISIONS["int2"], columns(200, 3)
    every = torch.tensor(list(itertools.product(levels_of(precision), repeat=3))).float()
    best = (values @ (every / every.norm(dim=1, keepdim=True)).T).max(dim=1).values / values.norm(dim=1)
    levels, _ = closest(values, None, precision)
    cosine = torch.nn.functional.cosine_similarity(values, levels)
    assert (cosine > best - 0.01).all() and (best - cosine).mean() < 1e-3


@pytest.mark.parametrize("width", [7, 400])
@pytest.mark.parametrize("precision", WITH_LEVELS, ids=lambda one: one.name)
def test_training_tries_fewer_steps_and_loses_little(precision: Precision, width: int) -> None:
    values = columns(64, width)
    levels, step = closest(values, None, precision)
    fewer, _ = closest(values, None, precision, SOME)
    cosine = torch.nn.functional.cosine_similarity
    lost, more = (float(1 - cosine(values, one).mean()) for one in (levels, fewer))
    assert lost <= more + 1e-7 and more <= 2.5 * lost
    best = (values * levels).sum(dim=1) / levels.square().sum(dim=1)
    assert torch.allclose(step.flatten(), best, rtol=2**-8), "the step of least squares, in bfloat16"
    assert torch.equal(step, step.to(torch.bfloat16).float())


def test_one_bit_is_the_sign_and_the_mean() -> None:
    values = columns(9, 31)
    levels, step = closest(values, None, PRECISIONS["int1"])
    assert torch.equal(levels, values.sign())
    assert torch.allclose(step.flatten(), values.abs().mean(dim=1), rtol=2**-8)


@pytest.mark.parametrize("precision", WITH_LEVELS, ids=lambda one: one.name)
def test_padding_changes_nothing(precision: Precision) -> None:
    values, kept = columns(20, 6), torch.arange(6) < torch.arange(20)[:, None] % 6 + 1
    levels, step = closest(torch.where(kept, values, 9.0), kept, precision)
    assert (levels[~kept] == 0).all()
    for column in range(20):
        alone, its = closest(values[column : column + 1, : column % 6 + 1], None, precision)
        assert torch.equal(levels[column, : column % 6 + 1], alone[0])
        assert torch.equal(step[column], its[0])


def test_a_search_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values, precision = columns(33, 7), PRECISIONS["int4"]
    whole = closest(values, None, precision)
    monkeypatch.setattr("expander_sae.model.rounding._PIECE", 70)
    pieces = closest(values, None, precision)
    assert all(map(torch.equal, whole, pieces))


def test_a_shared_step_is_found_again_from_what_it_made() -> None:
    """b_enc in a file has one step, which nothing else holds."""
    for name in range(20):
        values = columns(1, 50, f"bias{name}")[0] * 10.0 ** (name - 10)
        levels, step = one_step(values, PRECISIONS["int8"])
        again, same = one_step(levels * step, PRECISIONS["int8"])
        assert torch.equal(step, same) and torch.equal(levels, again)
        assert levels.abs().max() == 127
    nothing, step = one_step(torch.zeros(4), PRECISIONS["int8"])
    assert (nothing == 0).all() and step == 1


@pytest.mark.parametrize("precision", [*WITH_LEVELS, PRECISIONS["bfloat16"]], ids=lambda one: one.name)
def test_gradients_pass_the_rounding(precision: Precision) -> None:
    values, pull = columns(12, 5).requires_grad_(), columns(12, 5, "pull")
    rounded = straight_through(values, None, precision)
    (unit_columns(rounded) * pull).sum().backward()
    held = rounded.detach().requires_grad_()
    (unit_columns(held) * pull).sum().backward()
    assert torch.equal(values.grad, held.grad)
    if precision.levels:
        levels, step = closest(values.detach(), None, precision, SOME)
        assert torch.equal(rounded.detach(), levels * step)
        assert set(levels.unique().tolist()) <= set(map(float, levels_of(precision)))
