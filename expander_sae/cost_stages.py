"""What a study takes: jobs, seconds, memory and disk of each stage, from its configuration alone.

Nothing is measured here and no data is read. Every estimate is of one job with nothing beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from expander_sae.activations.splits import SPLITS
from expander_sae.cost_model import DENSE, Machine, Shape
from expander_sae.recipes import Recipe
from expander_sae.study import Cell, Model, Run, Study

VOCABULARIES = {
    "smollm2-135m-instruct": 49_152,
    "pythia-70m-deduped": 50_304,
    "pythia-160m": 50_304,
    "qwen2.5-3b": 151_936,
    "llama-3.2-1b": 128_256,
}
_VOCABULARY = 50_000  # of any other model
_FLOAT = 4
_TOKEN_BYTES = 10  # document, position and token id of a shard's row
_INDEX_BYTES = 18  # the same and the norm, beside a pool
_EVALUATED = 512  # tokens in one call of an inference
_BASELINES = 5  # passes over the cross-entropy sequences without an autoencoder
_LOGIT_BYTES = 4 << 26  # logits held at once
_MB = 1e6

# Resident megabytes of a process before its data: imports, and compiled kernels.
_BASE_MB = {"plain": 170, "model": 400, "extraction": 300, "training": 480, "evaluation": 550}


@dataclass(frozen=True)
class Stage:
    """Jobs that may run side by side. seconds: of each; peak_mb: of the largest; gpu: whether one is used."""

    name: str
    seconds: tuple[float, ...]
    peak_mb: float
    gpu: bool = False

    @property
    def total(self) -> float:
        return sum(self.seconds)


@dataclass(frozen=True)
class ModelSize:
    """A language model's parameters, estimated from its shape: 12·width² a layer, and the embedding."""

    width: int
    depth: int
    vocabulary: int
    dtype: str

    @classmethod
    def of(cls, model: Model) -> ModelSize:
        spec = model.spec
        vocabulary = VOCABULARIES.get(spec["name"], _VOCABULARY)
        return cls(spec["width"], spec["depth"], vocabulary, spec["dtype"])

    @property
    def layer(self) -> int:
        """Parameters of a decoder layer."""
        return 12 * self.width**2

    @property
    def parameters(self) -> int:
        return self.depth * self.layer + self.vocabulary * self.width

    @property
    def bytes(self) -> int:
        return self.parameters * (2 if self.dtype == "bfloat16" else 4)


class Plan:
    """The stages of a study on a machine.

    other: the machine that does what needs no GPU; `machine` itself where it has none.
    """

    def __init__(self, study: Study, machine: Machine, other: Machine | None = None) -> None:
        self.study, self.machine, self.other = study, machine, other or machine
        self.gpu = other is not None
        self.recipe = Recipe(**study.recipe_settings)
        self.threads: int = study.config["compute"]["threads"]
        asked = study.config["compute"]["backend"]
        self.backend = machine.backend("auto" if self.gpu else asked)
        self.sizes = {label: ModelSize.of(model) for label, model in study.models.items()}

    def stages(self) -> list[Stage]:
        """In the order in which they run."""
        found = [
            self._model(),
            self._corpus(),
            self._extraction(),
            self._pools(),
            self._masks(),
            self._training(),
            self._baseline(),
            self._evaluation(),
            Stage("tables, figure", (self.other.jobs["tables"] * len(self.study.runs) + 10,), 600),
        ]
        return [stage for stage in found if stage.seconds]

    def shard_tokens(self, model: Model) -> dict[str, int]:
        """Tokens that the shards of each split hold."""
        size = self.study.config["tokens"]["shard"]
        return {split: count * size for split, count in self.study.shards(model.label).items()}

    def _model(self) -> Stage:
        jobs = self.other.jobs
        seconds, peak = [], 0.0
        for model in self.study.models.values():
            size = self.sizes[model.label]
            work = jobs["convert"] if model.spec["source"] == "package" else 0.0
            seconds.append(jobs["start_model"] + work * size.parameters)
            if work:  # as it lies in the package, and as float32
                peak = max(peak, _BASE_MB["model"] + 2 * size.parameters * _FLOAT / _MB)
        return Stage("model", tuple(seconds), peak or _BASE_MB["model"])

    def _corpus(self) -> Stage:
        jobs = self.other.jobs
        tokens = [sum(self.shard_tokens(model).values()) for model in self.study.models.values()]
        seconds = tuple(jobs["corpus"] + jobs["corpus_token"] * count for count in tokens)
        # Token ids as Python lists and the documents of every word 8-gram: about 1.2 kB a token.
        return Stage("corpus", seconds, _BASE_MB["model"] + 1200 * max(tokens) / _MB)

    def _extraction(self) -> Stage:
        shard = self.study.config["tokens"]["shard"]
        batch = self.study.config["compute"]["batch_tokens"]
        seconds: list[float] = []
        peak = 0.0
        for model in self.study.models.values():
            size, jobs = self.sizes[model.label], self.machine.jobs
            written = shard * size.width * _FLOAT * len(model.layers)
            one = self._model_start(size) + written / jobs["shard_bytes"]
            one += self._forward(size, shard, batch, model.layers[-1] + 1) / self.threads
            seconds += [one] * sum(self.study.shards(model.label).values())
            activations = written + 16 * batch * size.width * _FLOAT
            peak = max(peak, _BASE_MB["extraction"] + (size.bytes + activations) / _MB)
        return Stage("extraction", tuple(seconds), peak, self.gpu)

    def _pools(self) -> Stage:
        seconds: list[float] = []
        peak = 0.0
        for model in self.study.models.values():
            row = self.sizes[model.label].width * _FLOAT
            for tokens in self.shard_tokens(model).values():
                seconds += [0.5 + tokens * row / self.other.jobs["pool_bytes"]] * len(model.layers)
                # A row group is held in a few copies, the columns of the index in two.
                peak = max(peak, _BASE_MB["plain"] + (6 * 4096 * row + 2 * _INDEX_BYTES * tokens) / _MB)
        return Stage("pool", tuple(seconds), peak)

    def _masks(self) -> Stage:
        masks = {run.mask: run.n * run.d for run in self.study.runs if run.mask}
        entries = max(masks.values(), default=0)
        seconds = tuple(0.1 + self.other.jobs["mask_entry"] * count for count in masks.values())
        return Stage("mask", seconds, _BASE_MB["plain"] + 40 * entries / _MB)

    def _training(self) -> Stage:
        seconds = tuple(self.training_seconds(run) for run in self.study.runs)
        return Stage("training", seconds, max(map(self._training_mb, self.study.runs)), self.gpu)

    def training_seconds(self, run: Run) -> float:
        """One run: start, checks of the pool, and the steps."""
        jobs, shape = self.machine.jobs, Shape(run.m, run.n, run.d, run.k, self.recipe.batch_size)
        backend = DENSE if run.support == "dense" else self.backend
        step = self.machine.seconds("train_step", backend, shape)
        encode = self.machine.seconds("encode_topk", backend, shape)
        if run.encoder != "tied":  # gradients and Adam of the encoder's own columns
            step += max(0.0, step - encode)
        if self.recipe.count_after_update:
            step += encode
        pool = self.study.train_tokens(run.model) * run.m * _FLOAT
        return jobs["start"] + pool / self.other.jobs["read_bytes"] + run.steps * step / self.threads

    def _training_mb(self, run: Run) -> float:
        free = 2 if run.encoder != "tied" else 1
        # Parameters, gradients, both moments, unit columns and one intermediate of each; row indices.
        state = run.n * run.d * _FLOAT * (6 * free + 1)
        scores = self.recipe.batch_size * (run.n if run.support == "dense" else 8192) * _FLOAT
        resampled = 0.1 * run.n * run.m * _FLOAT  # directions of the tenth that is silent, say
        pool = self.study.train_tokens(run.model) * (run.m * _FLOAT + 2 * _INDEX_BYTES)
        return _BASE_MB["training"] + (state + scores + resampled + pool) / _MB

    def _baseline(self) -> Stage:
        found = {(run.model, run.layer, run.train_tokens) for run in self.study.runs}
        seconds = []
        for model, layer, _ in sorted(found):
            size = self.sizes[model]
            seconds.append(self._model_start(size) + _BASELINES * self._splice(size, layer))
        return Stage("baseline", tuple(seconds), max(map(self._evaluation_mb, self.study.runs)), self.gpu)

    def _evaluation(self) -> Stage:
        seconds = tuple(self.evaluation_seconds(cell) for cell in self.study.cells.values())
        return Stage("evaluation", seconds, max(map(self._evaluation_mb, self.study.runs)), self.gpu)

    def evaluation_seconds(self, cell: Cell) -> float:
        """The seeds of a setting, one after the other in one process."""
        return self.machine.jobs["start_model"] + sum(map(self._run_evaluation, cell.runs))

    def _run_evaluation(self, run: Run) -> float:
        size, asked = self.sizes[run.model], run.evaluation
        seconds = size.parameters * self.machine.jobs["load"]
        for name in asked["inference"]:
            seconds += self._inference(run, name, asked["test_tokens"])
        for name in asked["cross_entropy"]:
            seconds += self._inference(run, name, self._sequence_tokens())
            seconds += self._splice(size, run.layer)
        return seconds

    def _inference(self, run: Run, name: str, tokens: int) -> float:
        """Codes and reconstructions of that many tokens."""
        shape = Shape(run.m, run.n, run.d, run.k, _EVALUATED)
        backend = DENSE if run.support == "dense" else self.backend
        task = "omp" if name == "omp" else "encode_topk"
        return tokens / _EVALUATED * self.machine.seconds(task, backend, shape) / self.threads

    def _sequence_tokens(self) -> int:
        """Of the cross-entropy sequences, were all as long as the context."""
        config = self.study.config
        return int(config["tokens"]["ce_sequences"] * config["corpus"]["context"])

    def _splice(self, size: ModelSize, layer: int) -> float:
        """The layers above `layer`, head and losses, for all cross-entropy sequences."""
        tokens = self._sequence_tokens()
        batch = max(1, (_LOGIT_BYTES // 4) // size.vocabulary)
        logits = tokens * size.vocabulary / self.machine.jobs["logits"]
        return (self._forward(size, tokens, batch, size.depth - 1 - layer) + logits) / self.threads

    def _forward(self, size: ModelSize, tokens: int, batch: int, layers: int) -> float:
        """A forward pass of so many decoder layers: 2 operations a parameter and token."""
        calls = -(-tokens // batch) * layers * self.machine.jobs["layer_call"]
        return calls + 2 * layers * size.layer * tokens / self.machine.jobs[f"forward_{size.dtype}"]

    def _model_start(self, size: ModelSize) -> float:
        return self.machine.jobs["start_model"] + size.parameters * self.machine.jobs["load"]

    def _evaluation_mb(self, run: Run) -> float:
        size, asked = self.sizes[run.model], run.evaluation
        logits = min(_LOGIT_BYTES, 4 * self._sequence_tokens() * size.vocabulary)
        columns = run.n * run.d * 8 + (_EVALUATED * run.n * 8 if run.support == "dense" else 0)
        if run.support == "dense" and "omp" in asked["inference"]:
            columns += 4 * min(run.n, 8192) ** 2
        pools = (asked["test_tokens"] + 2 * self._sequence_tokens()) * run.m * _FLOAT
        return _BASE_MB["evaluation"] + (size.bytes + logits + columns + pools) / _MB


def disk(study: Study, plan: Plan) -> Iterator[tuple[str, float]]:
    """(what, bytes) of everything that stays in results/, or in the Hub's cache for its models."""
    models = list(study.models.values())
    sizes = [(plan.sizes[model.label], model) for model in models]
    yield "language models", float(sum(size.bytes for size, _ in sizes))
    tokens = {model.label: plan.shard_tokens(model) for model in models}
    yield "token tables", float(sum(5 * sum(tokens[model.label].values()) for model in models))
    for what, beside in (("shards", _TOKEN_BYTES), ("pools", _INDEX_BYTES)):
        rows = (
            (size.width * _FLOAT + beside) * len(model.layers) * sum(tokens[model.label][s] for s in SPLITS)
            for size, model in sizes
        )
        yield what, float(sum(rows))
    values = sum(run.n * run.d * (1 if run.encoder == "tied" else 2) + run.n + run.m for run in study.runs)
    yield "weights", float(values * _FLOAT)
    config = study.config
    documents = config["tokens"]["test"] / config["corpus"]["context"]
    # Rows of a document: three metrics of each inference on test, one on cross-entropy; kept thrice.
    rows = sum(
        3 * documents * len(run.evaluation["inference"])
        + config["tokens"]["ce_sequences"] * len(run.evaluation["cross_entropy"])
        for run in study.runs
    )
    yield "tables", rows * 3 * 16 + 60_000.0 * len(study.runs)
