"""From the blocks of a configuration to its runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from expander_sae.masks.supports import support_of
from expander_sae.pursuit import inference
from expander_sae.pursuit.inference import ENCODER
from expander_sae.study.blocks import AXES, Config, as_list, blocks, sizes
from expander_sae.study.recipes import Recipe
from expander_sae.study.run import Analysis, Evaluation, JudgeSettings, Run

LABELLED = ("selectivity", "probing", "coherence")
"""Analyses that read labels or texts of tokens."""

ANALYSES = ("pursuits", "features", "collisions", "certificates", "novelty", *LABELLED)


@dataclass(frozen=True)
class Labels:
    """Folder names, and the settings that belong to them; of `models` the labelled entry by its name."""

    models: dict[str, dict[str, Any]]
    corpus: str
    recipe: str
    recipe_settings: Recipe


def collect(config: Config, labels: Labels) -> tuple[tuple[Run, ...], list[str]]:
    """(every run once, in the order of the blocks; what was left out and why)."""
    found: dict[Run, Run] = {}
    reasons: dict[str, None] = {}
    for block, origin in blocks(config):
        named = origin["inference"].startswith("runs[")
        for run in _block_runs(config, labels, block, named, reasons):
            found[run] = _merge(found[run], run) if run in found else run
    return tuple(found.values()), list(reasons)


def _block_runs(
    config: Config, labels: Labels, block: dict[str, Any], named: bool, reasons: dict[str, None]
) -> Iterator[Run]:
    """Of one block; `named`: it says itself how codes are found."""
    entries = {entry["name"]: entry for entry in config["models"]}
    evaluation, analysis = _measured(config, block)
    match = block["match"]
    for name in block["models"]:
        label, m = labels.models[name]["label"], entries[name]["width"]
        layers = block["layers"] or as_list(entries[name]["layers"])
        for layer, n in product(layers, sizes(block, m)):
            for axes in product(*(block[key] for key in AXES)):
                support, encoder, d, k, codes, precision, seed, tokens, steps = axes
                known = support_of(support)
                features, width, active = known.sized(m, n, d, k)
                length = steps if known.trained else 0
                if match:
                    features = matched(match, m, n, d)
                    length = max(1, round(steps * d / m)) if match == "compute" else steps
                    if match in ("decoder", "total") and features <= 2 * k:
                        reasons.setdefault(
                            f"{label}, k={k}: the dense run matched to d={d}, n={n} would have "
                            f"n'={features} features, at most 2k={2 * k}"
                        )
                        continue
                run = Run(
                    label, labels.corpus, layer, labels.recipe, support, encoder, m, features, width, active,
                    tokens, length, seed if known.seeded else 0, labels.recipe_settings, evaluation, analysis,
                    precision=precision, codes=codes, imported=block["imported"],
                )  # fmt: skip
                yield _as_trained(run, named, reasons)


def _as_trained(run: Run, named: bool, reasons: dict[str, None]) -> Run:
    """The run, measured by codes that it was trained for: its own stand for those of a spoilt encoder.

    Of what a block inherits only those are left; what it says itself (`named`) it gets.
    """
    evaluation, own = run.evaluation, run.own_codes
    if not support_of(run.support).rebuilds:
        if ENCODER not in evaluation.inference:
            return run
        reasons.setdefault(f"{run.support}: codes by its encoder, since they rebuild nothing")
        own = ()
    elif not run.is_pursued:
        return run
    elif ENCODER not in own and ENCODER in evaluation.inference:
        spoilt = f"the tied encoder of codes {run.codes}, which training by them spoils"
        reasons.setdefault(f"{run.support}: codes by {spoilt}; {run.codes} stands for it")

    def read(names: tuple[str, ...]) -> tuple[str, ...]:
        if run.is_pursued and not named:
            return own if names else ()
        return inference.in_order(one for name in names for one in (own if name == ENCODER else (name,)))

    evaluation = replace(
        evaluation,
        inference=read(evaluation.inference),
        cross_entropy=read(evaluation.cross_entropy),
        train_cross_entropy=evaluation.train_cross_entropy and ENCODER in own,
    )
    analysis = run.analysis
    if run.is_pursued:
        analysis = replace(analysis, inference=read(analysis.inference))
    return replace(run, evaluation=evaluation, analysis=analysis)


def _measured(config: Config, block: dict[str, Any]) -> tuple[Evaluation, Analysis]:
    """How a block's runs are measured. What an analysis is not asked for names no result."""
    tokens, pursuits = config["tokens"], "pursuits" in block["analyses"]
    found, spliced = (inference.in_order(block[key]) for key in ("inference", "cross_entropy"))
    pursued = min(tokens["pursued"] or tokens["test"], tokens["test"])
    amounts = (tokens["test"], tokens["ce_sequences"], block["train_cross_entropy"],
               0 if pursued == tokens["test"] else pursued)  # fmt: skip
    analyses, asked = in_order(block["analyses"], ANALYSES), config["evaluation"]
    compared: tuple[Any, ...] = (
        (tuple(sorted(asked["pursuits"])), asked["pursuit_tokens"]) if pursuits else ()
    )
    analysis = Analysis(analyses, tokens["test"], *compared)
    if not set(analyses).isdisjoint(LABELLED):
        read = min(asked["labelled_tokens"] or tokens["test"], tokens["test"])
        judge = JudgeSettings(**asked["judge"]) if "coherence" in analyses else None
        # A judge reads the texts of tokens, and no labels of the user's.
        own = asked["labels"] if set(analyses) & {"selectivity", "probing"} else None
        analysis = replace(analysis, inference=found, labelled_tokens=read, labels=own, judge=judge)
    return Evaluation(found, spliced, *amounts), analysis


def matched(match: str | None, m: int, n: int, d: int) -> int:
    """Features of a dense dictionary with as many values as a sparse one of n columns of d."""
    if match not in ("decoder", "total"):
        return n
    return d * n // (m if match == "decoder" else 2 * m)


def _merge(known: Run, again: Run) -> Run:
    """A run that two blocks name is measured in every way that either asks for."""
    one, other = known.evaluation, again.evaluation
    found = inference.in_order(one.inference + other.inference)
    spliced = inference.in_order(one.cross_entropy + other.cross_entropy)
    leak = one.train_cross_entropy or other.train_cross_entropy
    evaluation = replace(one, inference=found, cross_entropy=spliced, train_cross_entropy=leak)
    first, second = known.analysis, again.analysis
    analyses = in_order(first.analyses + second.analyses, ANALYSES)
    pursuits = tuple(sorted({*first.pursuits, *second.pursuits}))
    most = max(first.pursuit_tokens, second.pursuit_tokens)
    analysis = replace(first, analyses=analyses, pursuits=pursuits, pursuit_tokens=most)
    analysis = replace(
        analysis,
        inference=inference.in_order(first.inference + second.inference),
        labelled_tokens=max(first.labelled_tokens, second.labelled_tokens),
        labels=first.labels or second.labels,
        judge=first.judge or second.judge,
    )
    return replace(known, evaluation=evaluation, analysis=analysis)


def in_order(names: Collection[str], order: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once, in this order, whatever the configuration's was."""
    return tuple(name for name in order if name in names)
