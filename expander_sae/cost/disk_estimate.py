"""What a study leaves on disk, from its configuration alone."""

from __future__ import annotations

from collections.abc import Iterator

from expander_sae.cost.job_estimates import Plan
from expander_sae.cost.memory_estimate import FLOAT, INDEX_BYTES
from expander_sae.model.precisions import precision_of, stored_as
from expander_sae.study.study import Run, Study

_TOKEN_BYTES = 10  # document, position and token id of a shard's row


def disk(study: Study, plan: Plan) -> Iterator[tuple[str, float]]:
    """(what, bytes) of everything that stays in results/, or in the Hub's cache for its models."""
    models = list(study.models.values())
    yield "language models", float(sum(plan.sizes[model.label].bytes for model in models))
    tokens = {model.label: sum(plan.shard_tokens(model).values()) for model in models}
    yield "token tables", float(5 * sum(tokens.values()))
    rows = [(plan.sizes[model.label].width, len(model.layers) * tokens[model.label]) for model in models]
    each = FLOAT if study.config["tokens"]["stored"] == "float32" else FLOAT // 2
    yield "shards", float(sum((width * each + _TOKEN_BYTES) * count for width, count in rows))
    if study.recipe_settings.stream:
        kept = {model.label: tokens[model.label] - plan.shard_tokens(model)["train"] for model in models}
        rows = [(plan.sizes[model.label].width, len(model.layers) * kept[model.label]) for model in models]
    yield "pools", float(sum((width * FLOAT + INDEX_BYTES) * count for width, count in rows))
    yield "weights", sum(map(_weights, study.trained))
    config = study.config
    documents = config["tokens"]["test"] / config["corpus"]["context"]
    # Rows of a document: three metrics of each inference on test, one on cross-entropy; kept thrice.
    inferences = sum(len(run.evaluation.inference) for run in study.runs)
    spliced = sum(len(run.evaluation.cross_entropy) for run in study.runs)
    kept = 3 * documents * inferences + config["tokens"]["ce_sequences"] * spliced
    yield "tables", kept * 3 * 16 + 60_000.0 * len(study.runs)


def _weights(run: Run) -> float:
    """Bytes of a run's weights, nearly."""
    share = precision_of(stored_as(run.precision)).bits / 32
    return (run.n * run.d * (1 if run.encoder == "tied" else 2) + run.n + run.m) * FLOAT * share
