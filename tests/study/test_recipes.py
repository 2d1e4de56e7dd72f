"""Overrides of a recipe: kinds and ranges."""

from __future__ import annotations

import inspect
from dataclasses import asdict

import jsonschema
import pytest
import yaml

from expander_sae.errors import UserError
from expander_sae.study.config import SCHEMA
from expander_sae.study.json_objects import record
from expander_sae.study.recipes import DEFAULT, RECIPES, Recipe, resolve
from expander_sae.training.trainer import Trainer

PUBLISHED = [
    *("norm_limit", "scale_to_sqrt_m", "start_at_mean", "count_after_update", "resample_at_end"),
    *("resample_every", "resample_min_fires", "resample_max_dead", "batch_size"),
    *("learning_rate", "learning_rate_end", "clip_norm"),
]


@pytest.mark.parametrize("key", [field for field in asdict(RECIPES["standard"])])
def test_overrides_of_another_kind_are_named(key: str) -> None:
    for value in ("x", [1], float("nan"), -1, {}):
        with pytest.raises(UserError, match=rf"^training\.{key}: found .*, expected "):
            resolve("standard", {key: value})
    assert resolve("standard", asdict(RECIPES["paper"]))[1] == RECIPES["paper"]
    assert resolve("standard", {"learning_rate": 1})[1].learning_rate == 1


def test_settings_leave_out_what_the_published_loop_lacks() -> None:
    """A later field would change the names of all that was trained before it."""
    assert set(RECIPES["paper"].settings) == set(RECIPES["standard"].settings) == set(PUBLISHED)
    tuned = RECIPES["tuned"].settings
    assert tuned == {
        key: getattr(RECIPES["tuned"], key)
        for key in [*PUBLISHED, "rate_per_column", "bias_rate", "resample_until"]
    }
    for name, recipe in RECIPES.items():
        assert record(Recipe, recipe.settings, name) == recipe
    with pytest.raises(UserError, match=r"recipe.clip_norm: missing"):
        record(Recipe, {key: tuned[key] for key in tuned if key != "clip_norm"}, "recipe")


def test_one_recipe_is_the_default_everywhere() -> None:
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["properties"]["recipe"]
    assert schema["default"] == DEFAULT and sorted(schema["enum"]) == sorted(RECIPES)
    assert inspect.signature(Trainer).parameters["recipe"].default == DEFAULT


def test_overrides_have_the_ranges_of_the_configuration() -> None:
    """What the schema allows for `training` and what `resolve` allows are one."""
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["properties"]["training"]["properties"]
    for key in asdict(RECIPES["standard"]):
        validator = jsonschema.Draft202012Validator(schema[key])
        for value in (None, True, False, -1, 0, 0.5, 1, 1.5, 2, 10**6, "1"):
            try:
                resolve("standard", {key: value})
                taken = True
            except UserError:
                taken = False
            assert taken == validator.is_valid(value), (key, value)
