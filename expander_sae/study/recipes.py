"""Training recipes: what is done to the activations, and how the loop runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from expander_sae.errors import UserError
from expander_sae.storage.files import digest
from expander_sae.study.json_objects import LATER, stated


@dataclass(frozen=True)
class Recipe:
    """Everything about training except the dictionary's shape, the data and the number of steps.

    Args:
        norm_limit: tokens whose norm exceeds this multiple of the median norm are left out of training and
            passed through when spliced; None keeps every token.
        scale_to_sqrt_m: scale activations so that the mean norm of the kept tokens is √m.
        start_at_mean: start b_dec at the mean kept activation, not at 0.
        count_after_update: count firing by a second forward pass after the update (|x| > 1e-6), as published;
            otherwise from the features that the step itself selected.
        resample_at_end: also resample after the very last step when it is a multiple of `resample_every`, as
            published.
        resample_min_fires: a feature that fired fewer times since the last resampling is re-aimed.
        resample_max_dead: skip a resampling when more than this share is dead.
        learning_rate: Adam's rate at the first step, of a value; with `rate_per_column` of a column.
        learning_rate_end: that at the end of the cosine, in the same unit.
        rate_per_column: a column of d values starts with values of about 1/√d, and Adam moves each by about
            its rate, whatever its size. With this the rate of values is `learning_rate`/√d, so that columns
            of any d turn at one speed.
        bias_rate: Adam's rate of both biases at the first step is √d times this, since a score, a sum of d
            products, moves by up to √d·`learning_rate`; it falls as that does. None: `learning_rate`.
        resample_until: share of the steps after which no feature is re-aimed: one that is has to learn.
        grow_every: steps between exchanges of rows, where a support learns its rows.
        grow_share: of the values of a column, those exchanged at the first time; later fewer.
        grow_until: share of the steps after which no row is exchanged.
        lazy: clip and Adam visit the columns of a step's codes only; see `training.lazy`.
        pursuit_steps: steps with codes by a pursuit, of a run that asks for them; they follow the others.
        pursuit_rate: Adam's rate of a column at the first of these steps; it falls to 0 along a cosine.
        stream: tokens that are mixed at a time where batches are dealt out from shards as they are read, each
            token once an epoch; 0: batches are drawn with replacement from a pool of all tokens.
    """

    norm_limit: float | None = 10.0
    scale_to_sqrt_m: bool = True
    start_at_mean: bool = True
    count_after_update: bool = False
    resample_at_end: bool = False
    resample_every: int = 1000
    resample_min_fires: int = 5
    resample_max_dead: float = 0.8
    batch_size: int = 256
    learning_rate: float = 3e-4
    learning_rate_end: float = 1e-5
    clip_norm: float = 1.0
    rate_per_column: bool = field(default=False, metadata=LATER)
    bias_rate: float | None = field(default=None, metadata=LATER)
    resample_until: float = field(default=1.0, metadata=LATER)
    grow_every: int = field(default=100, metadata=LATER)
    grow_share: float = field(default=0.3, metadata=LATER)
    grow_until: float = field(default=0.75, metadata=LATER)
    pursuit_steps: int = field(default=1000, metadata=LATER)
    pursuit_rate: float = field(default=0.1, metadata=LATER)
    lazy: bool = field(default=False, metadata=LATER)
    stream: int = field(default=0, metadata=LATER)

    @property
    def pursuing(self) -> Recipe:
        """The recipe of the steps with codes by a pursuit, for all of which columns are at unit norm first.

        So one rate of a column serves every d. The code does not change with b_dec, whose rate is small.
        """
        rate = self.pursuit_rate
        own = replace(self, learning_rate=rate, learning_rate_end=0.0, bias_rate=rate / 50)
        return replace(own, rate_per_column=True, count_after_update=False)

    @property
    def settings(self) -> dict[str, Any]:
        """The fields as a JSON object; those of `LATER` only where they are used."""
        return stated(self)


_RANGES: dict[str, tuple[float, float]] = {
    "resample_every": (1, math.inf),
    "resample_min_fires": (0, math.inf),
    "resample_max_dead": (0, 1),
    "batch_size": (1, math.inf),
    "learning_rate_end": (0, math.inf),
    "resample_until": (0, 1),
    "grow_every": (1, math.inf),
    "grow_share": (0, 1),
    "grow_until": (0, 1),
    "pursuit_steps": (1, math.inf),
    "stream": (0, math.inf),
}
"""Smallest and largest value; that of other numbers is above 0."""

_NULLABLE = ("norm_limit", "bias_rate")

RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        norm_limit=None,
        scale_to_sqrt_m=False,
        start_at_mean=False,
        count_after_update=True,
        resample_at_end=True,
    ),
    "standard": Recipe(),
    "tuned": Recipe(
        learning_rate=0.1,
        learning_rate_end=0.0,
        rate_per_column=True,
        bias_rate=2e-3,
        resample_every=100,
        resample_until=0.8,
    ),
}


DEFAULT = "tuned"
"""Of the schema, of `Trainer` and of the command line."""


def resolve(name: str, overrides: dict[str, Any] | None = None) -> tuple[str, Recipe]:
    """(label, recipe) of a built-in recipe with overrides.

    The label is the name, followed by six hex digits where a value differs from the built-in.
    """
    if name not in RECIPES:
        raise UserError(f"recipe: found {name!r}, expected one of {', '.join(sorted(RECIPES))}")
    overrides, known = overrides or {}, sorted(field.name for field in fields(Recipe))
    for key in sorted(overrides):
        if key not in known:
            raise UserError(f"training.{key}: unknown key, expected one of {', '.join(known)}")
    for key, value in overrides.items():
        if (expected := _expected(key, value)) is not None:
            raise UserError(f"training.{key}: found {value!r}, expected {expected}")
    recipe = replace(RECIPES[name], **overrides)
    return name if recipe == RECIPES[name] else f"{name}-{digest(recipe.settings)[:6]}", recipe


def _expected(key: str, value: Any) -> str | None:
    """What the field may be, where `value` is not that; the kind is that of the standard recipe's."""
    standard = getattr(Recipe, key)
    if isinstance(standard, bool):
        return None if isinstance(value, bool) else "true or false"
    nullable = key in _NULLABLE
    if nullable and value is None:
        return None
    low, high = _RANGES.get(key, (0, math.inf))
    kinds, kind = (int, "a whole number") if isinstance(standard, int) else ((int, float), "a number")
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if right and low <= value <= high and value != math.inf and (value > 0 or key in _RANGES):
        return None
    range_ = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
    return f"{kind} {range_ if key in _RANGES else 'above 0'}" + (" or null" if nullable else "")
