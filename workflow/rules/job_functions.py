"""Functions that Snakemake calls for each job: they give a rule's inputs, params and resources.

Lies beside the rules because Snakemake lets them import modules of their own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient
from snakemake_patches import quick

from expander_sae.cost.job_estimates import Need
from expander_sae.cost.memory_estimate import asked_mb, asked_minutes
from expander_sae.storage.files import canonical_json
from expander_sae.study.targets import Files

Of = Callable[[Any], Any]
"""A function of a job's wildcards."""

_ANCIENT = ("pool", "parents", "model", "test", "ce", "train", "validation")
"""Inputs whose dates say nothing: a pool grows at its end, and jobs compare checksums and fingerprints."""


def of(found: Mapping[str, Any], wildcard: str, function: Callable[[Any], Any]) -> Of:
    """`function` of the entry of `found` that a wildcard names."""

    def of_entry(wildcards: Any) -> Any:
        name = getattr(wildcards, wildcard)
        if name not in found:
            raise WorkflowError(f"{name}: no such {wildcard} in the configuration")
        return function(found[name])

    return quick(of_entry)


def inputs_of(found: Mapping[str, Any], wildcard: str, files: Callable[[Any], Files]) -> Of:
    """Named inputs from `files`, a function of the entry of `found` that a wildcard names."""

    return of(found, wildcard, lambda entry: marked(files(entry)))


def marked(files: Files) -> Files:
    """The same, where those are ancient whose dates say nothing."""
    return {name: ancient(file) if name in _ANCIENT else file for name, file in files.items()}


def untriggered(function: Of) -> Callable[[Any, Any], Any]:
    """The same as a param whose changes rerun nothing: no param that depends on the output does."""
    return quick(lambda wildcards, output: function(wildcards))


@quick
def as_json(wildcards: Any, input: Any) -> str:
    """Every input of the rule under its name, as a param; what changes it is already a trigger."""
    return canonical_json(dict(input.items()))


def asks(need: Callable[[Any], Need], minutes: int = 30) -> dict[str, Callable[..., int]]:
    """Resources of a rule from `need`, which gives a job's `Need` by its wildcards.

    mem_mb and runtime, `minutes` at least, are what a scheduler is asked for, more at each attempt. peak_mb
    is the estimate itself, which the job compares with the memory that it finds.
    """
    known: dict[tuple[str, ...], Need] = {}

    def once(wildcards: Any) -> Need:
        key = tuple(wildcards)
        if key not in known:
            known[key] = need(wildcards)
        return known[key]

    found: dict[str, Callable[..., int]] = {
        "mem_mb": lambda wildcards, attempt: asked_mb(once(wildcards).peak_mb, attempt),
        "peak_mb": lambda wildcards: round(once(wildcards).peak_mb),
        "runtime": lambda wildcards, attempt: asked_minutes(once(wildcards).seconds, minutes, attempt),
    }
    return {name: quick(function) for name, function in found.items()}
