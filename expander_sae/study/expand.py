"""From the blocks of a configuration to its runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from expander_sae.masks.supports import support_of
from expander_sae.pursuit.inference import everywhere
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
    for block, _ in blocks(config):
        for run in _block_runs(config, labels, block, reasons):
            found[run] = _merge(found[run], run) if run in found else run
    return tuple(found.values()), list(reasons)


def _block_runs(
    config: Config, labels: Labels, block: dict[str, Any], reasons: dict[str, None]
) -> Iterator[Run]:
    entries = {entry["name"]: entry for entry in config["models"]}
    evaluation, analysis = _measured(config, block)
    match = block["match"]
    for name in block["models"]:
        label, m = labels.models[name]["label"], entries[name]["width"]
        layers = block["layers"] or as_list(entries[name]["layers"])
        for layer, n in product(layers, sizes(block, m)):
            for axes in product(*(block[key] for key in AXES)):
                support, encoder, d, k, precision, seed, tokens, steps = axes
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
                told = evaluation
                if not known.rebuilds and "encoder" in evaluation.inference:
                    told = _pursued(evaluation)
                    reasons.setdefault(f"{support}: codes by its encoder, since they rebuild nothing")
                yield Run(
                    label, labels.corpus, layer, labels.recipe, support, encoder, m, features, width, active,
                    tokens, length, seed if known.seeded else 0, labels.recipe_settings, told, analysis,
                    precision=precision,
                )  # fmt: skip


def _pursued(evaluation: Evaluation) -> Evaluation:
    """The same without the codes of an encoder that rebuilds nothing."""
    inference, spliced = (
        tuple(name for name in names if name != "encoder")
        for names in (evaluation.inference, evaluation.cross_entropy)
    )
    return replace(evaluation, inference=inference, cross_entropy=spliced, train_cross_entropy=False)


def _measured(config: Config, block: dict[str, Any]) -> tuple[Evaluation, Analysis]:
    """How a block's runs are measured. What an analysis is not asked for names no result."""
    tokens, pursuits = config["tokens"], "pursuits" in block["analyses"]
    inference, spliced = (in_order(block[key], everywhere()) for key in ("inference", "cross_entropy"))
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
        analysis = replace(analysis, inference=inference, labelled_tokens=read, labels=own, judge=judge)
    return Evaluation(inference, spliced, *amounts), analysis


def matched(match: str | None, m: int, n: int, d: int) -> int:
    """Features of a dense dictionary with as many values as a sparse one of n columns of d."""
    if match not in ("decoder", "total"):
        return n
    return d * n // (m if match == "decoder" else 2 * m)


def _merge(known: Run, again: Run) -> Run:
    """A run that two blocks name is measured in every way that either asks for."""
    one, other = known.evaluation, again.evaluation
    inference = in_order(one.inference + other.inference, everywhere())
    spliced = in_order(one.cross_entropy + other.cross_entropy, everywhere())
    leak = one.train_cross_entropy or other.train_cross_entropy
    evaluation = replace(one, inference=inference, cross_entropy=spliced, train_cross_entropy=leak)
    first, second = known.analysis, again.analysis
    analyses = in_order(first.analyses + second.analyses, ANALYSES)
    pursuits = tuple(sorted({*first.pursuits, *second.pursuits}))
    most = max(first.pursuit_tokens, second.pursuit_tokens)
    analysis = replace(first, analyses=analyses, pursuits=pursuits, pursuit_tokens=most)
    analysis = replace(
        analysis,
        inference=in_order(first.inference + second.inference, everywhere()),
        labelled_tokens=max(first.labelled_tokens, second.labelled_tokens),
        labels=first.labels or second.labels,
        judge=first.judge or second.judge,
    )
    return replace(known, evaluation=evaluation, analysis=analysis)


def in_order(names: Collection[str], order: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once, in this order, whatever the configuration's was."""
    return tuple(name for name in order if name in names)
