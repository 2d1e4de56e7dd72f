"""What a study sweeps: values of its recipe, compared on the validation split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from expander_sae.errors import UserError
from expander_sae.pursuit import inference
from expander_sae.study import recipes
from expander_sae.study.blocks import Config, as_list
from expander_sae.study.run import Analysis, Evaluation, Run


@dataclass(frozen=True)
class Sweep:
    """The runs that are compared, and how.

    Args:
        values: label of a recipe → the fields that are swept and their values in it.
        inference: ways to find codes on the first `tokens` tokens of the validation split; the first is the
            one that is chosen by.
    """

    runs: tuple[Run, ...]
    values: dict[str, dict[str, Any]]
    inference: tuple[str, ...]
    tokens: int

    @property
    def asked(self) -> dict[str, Any]:
        """What the measurement of each run is told."""
        return {"inference": list(self.inference), "tokens": self.tokens}


def sweep_of(config: Config, runs: Sequence[Run]) -> Sweep | None:
    """Every cell of `runs` under each recipe of the block `sweep`; None without one.

    Left out are runs that start from another's weights, which is swept, and those that nobody trains. What is
    rounded after training is swept as it was before.
    """
    if "sweep" not in config:
        return None
    asked = config["sweep"]
    found: dict[Run, None] = {}
    values: dict[str, dict[str, Any]] = {}
    for combination in _combinations(asked["training"]):
        label, settings = recipes.resolve(config["recipe"], _overrides(config) | combination)
        values[label] = combination
        for run in runs:
            run = run if run.is_trained else run.parent or run
            if run.parent or not run.steps:
                continue
            for steps, seed in product(as_list(asked.get("steps", run.steps)), as_list(asked["seeds"])):
                swept = replace(run, recipe=label, recipe_settings=settings, steps=steps, seed=seed)
                found[replace(swept, evaluation=Evaluation(), analysis=Analysis())] = None
    by = inference.in_order(asked["inference"])
    return Sweep(tuple(found), values, by, config["tokens"]["validation"])


def sweep_errors(config: Config) -> Iterator[str]:
    """The values of `sweep.training` that no recipe can have."""
    for key, listed in config.get("sweep", {}).get("training", {}).items():
        for value in listed:
            try:
                recipes.resolve(config["recipe"], {key: value})
            except UserError as error:
                yield f"sweep.{error}"


def _overrides(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config["training"].items() if key != "steps"}


def _combinations(fields: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination, with numbers as a configuration's own are read: 1.0 for 1 where that is a number."""
    read = {key: [_read(key, value) for value in listed] for key, listed in fields.items()}
    for combination in product(*read.values()):
        yield dict(zip(read, combination, strict=True))


def _read(key: str, value: Any) -> Any:
    whole = isinstance(getattr(recipes.Recipe, key), int)
    return value if whole or value is None else float(value)
