"""Overrides of a recipe: kinds and ranges."""

from __future__ import annotations

from dataclasses import asdict

import jsonschema
import pytest
import yaml

from expander_sae.errors import UserError
from expander_sae.study.config import SCHEMA
from expander_sae.study.recipes import RECIPES, resolve


@pytest.mark.parametrize("key", [field for field in asdict(RECIPES["standard"])])
def test_overrides_of_another_kind_are_named(key: str) -> None:
    for value in ("x", [1], float("nan"), -1, {}):
        with pytest.raises(UserError, match=rf"^training\.{key}: found .*, expected "):
            resolve("standard", {key: value})
    assert resolve("standard", asdict(RECIPES["paper"]))[1] == RECIPES["paper"]
    assert resolve("standard", {"learning_rate": 1})[1].learning_rate == 1


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
