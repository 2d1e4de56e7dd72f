"""Blocks of a configuration: what each of them says once everything that it inherits is filled in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from expander_sae.masks.supports import support_of
from expander_sae.study import imported

Config = dict[str, Any]

AXES = ("support", "encoder", "d", "k", "codes", "precision", "seeds", "train_tokens", "steps")
"""Keys whose lists are multiplied, beside models, layers and n."""

MEASURED = ("inference", "cross_entropy", "train_cross_entropy", "analyses")
"""Keys of `evaluation` that a block may override."""


def as_list(value: Any) -> list[Any]:
    """A scalar of the config as a list of one."""
    return list(value) if isinstance(value, list) else [value]


def blocks(config: Config) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Each block with everything it inherits, and the key path that each value came from."""
    return (block_of(config, index) for index in range(len(config["runs"])))


def block_of(config: Config, index: int) -> tuple[dict[str, Any], dict[str, str]]:
    """One of `blocks`; where it imports an autoencoder, that has to be there."""
    fallback = {
        "train_tokens": ("tokens.train", config["tokens"]["train"]),
        "steps": ("training.steps", config["training"]["steps"]),
        "models": ("models", [entry["name"] for entry in config["models"]]),
        **{key: (f"evaluation.{key}", config["evaluation"][key]) for key in MEASURED},
        "layers": ("models", None),
        "match": ("", None),
    }
    entry = config["runs"][index]
    if imported.imports(entry):
        entry = entry | imported.own_keys(entry)
    block: dict[str, Any] = {"imported": entry.get("imported")}
    origin: dict[str, str] = {}
    grid = dict(config["grid"])
    if "n" in entry or "expansion" in entry:
        grid.pop("n", None), grid.pop("expansion", None)
    for key in (*AXES, "n", "expansion", *fallback):
        if key in grid and key not in entry:
            block[key], origin[key] = grid[key], f"grid.{key}"
        elif key in fallback and key not in entry:
            origin[key], block[key] = fallback[key]
        else:
            block[key], origin[key] = entry.get(key), f"runs[{index}].{key}"
    for key in (*AXES, "n", "expansion", "models", "layers"):
        if block[key] is not None:
            block[key] = as_list(block[key])
    asks_d = any(support_of(name).asks_d for name in block["support"])
    if not asks_d and block["d"] is None and not block["match"]:
        block["d"] = [1]  # a full dictionary has no d
    if "inference" in entry and "cross_entropy" not in entry:
        # What is inherited is spliced as far as this block infers it.
        block["cross_entropy"] = [name for name in block["cross_entropy"] if name in block["inference"]]
    return block, origin


def sizes(block: dict[str, Any], m: int) -> list[int]:
    """The numbers of features that a block asks for at width m."""
    if block["n"] is not None:
        return list(block["n"])
    return [round(ratio * m) for ratio in block["expansion"]]
