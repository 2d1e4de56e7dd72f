"""What a study takes: jobs, seconds and memory of each stage, from its configuration alone.

Nothing is measured here and no data is read. Every estimate is of one job with nothing beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from expander_sae.cost.memory_estimate import FLOAT, Memory, ModelSize
from expander_sae.cost.time_model import DENSE, Machine
from expander_sae.machine.piece_sizes import (
    EVALUATED_TOKENS,
    LOGITS,
    LOGITS_ON_GPU,
    STEPS_TOGETHER,
    batch_tokens,
)
from expander_sae.masks.shapes import Piece
from expander_sae.masks.supports import support_of
from expander_sae.study.study import Job, Model, Run, Study

_ROUNDING = 1e-6  # seconds a value, with 48 steps tried
_BASELINES = 3  # passes over the cross-entropy sequences without an autoencoder; two more are nearly free


@dataclass(frozen=True)
class Need:
    """What one job takes: seconds on the machine of the plan, and its peak memory in megabytes."""

    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Stage:
    """Jobs that may run side by side: the seconds of each, the peak of the largest, whether a GPU is used."""

    name: str
    seconds: tuple[float, ...]
    peak_mb: float
    gpu: bool = False

    @property
    def total(self) -> float:
        return sum(self.seconds)


class Plan:
    """What each job of a study takes on a machine, and its stages.

    `other` is the machine that does what needs no GPU, where `machine` has one. `memory` is how the peaks are
    estimated; those of a CPU where none is given.
    """

    def __init__(
        self, study: Study, machine: Machine, other: Machine | None = None, memory: Memory | None = None
    ) -> None:
        self.study, self.machine, self.other = study, machine, other or machine
        self.gpu = other is not None
        self.recipe = study.recipe_settings
        self.threads: int = study.config["compute"]["threads"]
        asked = study.config["compute"]["backend"]
        self.backend = machine.backend("auto" if self.gpu else asked)
        self.memory = memory or Memory(study)
        self.sizes = self.memory.sizes
        # Layers and seeds share shapes: thousands of jobs ask for a few hundred times.
        self._together, self._coding = cache(machine.together), cache(machine.coding)
        self._peak_of_evaluations = cache(self._largest_evaluation)

    def stages(self) -> list[Stage]:
        """In the order in which they run."""
        runs, models = self.study.runs, list(self.study.models.values())
        masks = {run.mask: (run.n, run.d) for run in runs if run.mask}
        layers = sorted({(run.model, run.layer, run.train_tokens) for run in runs})
        baselines = [(self.study.models[model], layer) for model, layer, _ in layers]
        found = [
            _stage("model", map(self.model, models)),
            _stage("corpus", map(self.corpus, models)),
            _stage("extraction", (self.extraction(m, n) for m in models for n in self._shards(m)), self.gpu),
            _stage(
                "pool",
                (self.pool(m, split) for m in models for split in self.shard_tokens(m) for _ in m.layers),
            ),
            _stage("mask", (self.mask(n, d) for n, d in masks.values())),
            _stage("training", (self.trainings(job.runs) for job in self.study.trainings), self.gpu),
            _stage("baseline", (self.baseline(m, layer) for m, layer in baselines), self.gpu),
            _stage("evaluation", map(self.evaluation, self.study.measured.values()), self.gpu),
            _stage("validation", map(self.validation, self.study.swept.values()), self.gpu),
            Stage("tables, figure", (self.other.jobs["tables"] * len(runs) + 10,), self.memory.tables),
        ]
        return [stage for stage in found if stage.seconds]

    def shard_tokens(self, model: Model) -> dict[str, int]:
        """Tokens that the shards of each split hold."""
        size = self.study.config["tokens"]["shard"]
        return {split: count * size for split, count in self.study.shards(model.label).items()}

    def _shards(self, model: Model) -> list[int]:
        """Shards of each job of extraction."""
        return [len(shards) for _, shards in self.study.extractions(model.label)]

    def model(self, model: Model) -> Need:
        """Putting a model's weights where later jobs load them."""
        jobs = self.other.jobs
        work = jobs["convert"] if model.spec["source"] == "package" else 0.0
        seconds = jobs["start_model"] + work * self.sizes[model.label].parameters
        return Need(seconds, self.memory.model(model))

    def corpus(self, model: Model) -> Need:
        """Reading, splitting and tokenising a model's text."""
        tokens = sum(self.shard_tokens(model).values())
        seconds = self.other.jobs["corpus"] + self.other.jobs["corpus_token"] * tokens
        return Need(seconds, self.memory.corpus(tokens))

    def extraction(self, model: Model, shards: int = 1) -> Need:
        """Some shards of all layers of a model."""
        shard = shards * self.study.config["tokens"]["shard"]
        batch = batch_tokens(self.study.config["compute"]["batch_tokens"], self.gpu)
        size, jobs = self.sizes[model.label], self.machine.jobs
        seconds = (
            self._model_start(size) + shard * size.width * FLOAT * len(model.layers) / jobs["shard_bytes"]
        )
        seconds += self._forward(size, shard, batch, model.layers[-1] + 1) / self.threads
        return Need(seconds, self.memory.extraction(model))

    def pool(self, model: Model, split: str) -> Need:
        """Joining the shards of one split of one layer, or listing those that are streamed."""
        tokens = self.shard_tokens(model)[split]
        if split == "train" and self.recipe.stream:
            return Need(0.5 + 0.01 * self.study.shards(model.label)[split], self.memory.pool(model, 0))
        row = self.sizes[model.label].width * FLOAT
        return Need(0.5 + tokens * row / self.other.jobs["pool_bytes"], self.memory.pool(model, tokens))

    def mask(self, n: int, d: int) -> Need:
        return Need(0.1 + self.other.jobs["mask_entry"] * n * d, self.memory.mask(n, d))

    def trainings(self, runs: Sequence[Run]) -> Need:
        """Runs in one process: one after the other, and on a GPU as rounds of many."""
        if self.gpu and runs[0].is_trained and not runs[0].is_pursued and not self.recipe.stream:
            return self._rounds(runs)
        needs = [self.training(run) for run in runs]
        again = (len(runs) - 1) * self.machine.jobs["start"]
        return Need(sum(need.seconds for need in needs) - again, max(need.peak_mb for need in needs))

    def training(self, run: Run) -> Need:
        """One run: start, checks of the pool, and the steps."""
        if not run.is_trained:  # weights are read, rounded and written
            entries = run.n * run.d * (1 if run.encoder == "tied" else 2)
            seconds = self.machine.jobs["start"] + entries * _ROUNDING
            return Need(seconds, self.memory.training(run))
        steps = self.recipe.pursuit_steps if run.is_pursued else run.steps
        seconds = self._training_start(run) + steps * self._step(run) / self.threads
        return Need(seconds, self.memory.training(run))

    def _rounds(self, runs: Sequence[Run]) -> Need:
        """Runs of one number of steps on a GPU: each round pays once what a call takes at any size."""
        pairs = [self._call_and_rest(run) for run in runs]
        rounds = -(-len(runs) // STEPS_TOGETHER)
        step = rounds * max(call for call, _ in pairs) + sum(rest for _, rest in pairs)
        seconds = self._training_start(runs[0]) + runs[0].steps * step
        return Need(seconds, max(map(self.memory.training, runs)))

    def _call_and_rest(self, run: Run) -> tuple[float, float]:
        """A step's seconds: what a call takes at any size, and all that grows with the shape."""
        call, encode = self._call_alone("train_step", run), self._call_alone("encode_topk", run)
        paid = call + (max(0.0, call - encode) if run.encoder != "tied" else 0.0)
        paid += encode if self.recipe.count_after_update else 0.0
        return call, max(0.0, self._step(run) - paid)

    def _call_alone(self, task: str, run: Run) -> float:
        """What calls take at any size, on the matrices that the columns are computed with."""
        tasks, pieces = self.machine.tasks[task], _pieces(run)
        return sum(float(tasks[DENSE if one.d == one.m else self.backend]["a"]) for one in pieces)

    def _training_start(self, run: Run) -> float:
        """Seconds until the first step: imports, and the pool read once."""
        pool = self.memory.train_tokens[run.model] * run.m * FLOAT
        return self.machine.jobs["start"] + pool / self.other.jobs["read_bytes"]

    def _step(self, run: Run) -> float:
        """Seconds of a step on one thread."""
        step, encode = (
            self._all_pieces(task, run, self.recipe.batch_size) for task in ("train_step", "encode_topk")
        )
        if run.encoder != "tied":  # gradients and Adam of the encoder's own columns
            step += max(0.0, step - encode)
        if self.recipe.count_after_update:
            step += encode
        if run.is_pursued:  # instead of an encoder's pass, one of the pursuit
            step = max(0.0, step - encode) + self._coded(run, run.codes, self.recipe.batch_size)
        return step

    def baseline(self, model: Model, layer: int) -> Need:
        """The cross-entropies of the model itself; it takes the memory of an evaluation."""
        size = self.sizes[model.label]
        seconds = self._model_start(size) + _BASELINES * self._splice(size, layer)
        return Need(seconds, self._peak_of_evaluations(model.label))

    def _largest_evaluation(self, model: str) -> float:
        return max(self.memory.evaluation(run) for run in self.study.runs if run.model == model)

    def evaluation(self, job: Job) -> Need:
        """The runs of a job, one after the other in one process."""
        seconds = self.machine.jobs["start_model"] + sum(map(self._run_evaluation, job.runs))
        for model in {(run.model, run.layer): run.model for run in job.runs}.values():  # loaded once a layer
            seconds += self.sizes[model].parameters * self.machine.jobs["load"]
        return Need(seconds, max(map(self.memory.evaluation, job.runs)))

    def validation(self, cell: Job) -> Need:
        """Swept runs of a cell on the validation split; an evaluation's memory is ample."""
        seconds = self.machine.jobs["start"]
        if (asked := self.study.sweep) is not None:
            calls = [(run, name) for run in cell.runs for name in asked.inference]
            seconds += sum(self._inference(run, name, asked.tokens) for run, name in calls)
        return Need(seconds, max(map(self.memory.evaluation, cell.runs)))

    def _run_evaluation(self, run: Run) -> float:
        size, asked = self.sizes[run.model], run.evaluation
        seconds = 0.0
        for name in asked.inference:
            pursued = name != "encoder" and asked.pursued_tokens
            seconds += self._inference(run, name, pursued or asked.test_tokens)
        for name in asked.cross_entropy:
            seconds += self._inference(run, name, self.memory.sequence_tokens)
            seconds += self._splice(size, run.layer)
        return seconds

    def _all_pieces(self, task: str, run: Run, batch: int) -> float:
        """Core seconds of one call, on each of the matrices that the columns are computed with."""
        return self._together(task, self.backend, _pieces(run), run.k, batch)

    def _coded(self, run: Run, name: str, batch: int) -> float:
        """Core seconds of the codes of a batch; a pursuit that is not known is taken for OMP."""
        known = (self._coding(each, self.backend, _pieces(run), run.k, batch) for each in (name, "omp"))
        return next(seconds for seconds in known if seconds is not None)

    def _inference(self, run: Run, name: str, tokens: int) -> float:
        """Codes and reconstructions of that many tokens."""
        calls, rest = divmod(tokens, EVALUATED_TOKENS)
        batches = [(count, batch) for count, batch in ((calls, EVALUATED_TOKENS), (1, rest)) if count * batch]
        return sum(count * self._coded(run, name, batch) for count, batch in batches) / self.threads

    def _splice(self, size: ModelSize, layer: int) -> float:
        """The layers above `layer`, head and losses, for all cross-entropy sequences."""
        tokens = self.memory.sequence_tokens
        batch = max(1, (LOGITS_ON_GPU if self.gpu else LOGITS) // size.vocabulary)
        logits = tokens * size.vocabulary / self.machine.jobs["logits"]
        return (self._forward(size, tokens, batch, size.depth - 1 - layer) + logits) / self.threads

    def _forward(self, size: ModelSize, tokens: int, batch: int, layers: int) -> float:
        """A forward pass of so many decoder layers: 2 operations a parameter and token."""
        calls = -(-tokens // batch) * layers * self.machine.jobs["layer_call"]
        return calls + 2 * layers * size.layer * tokens / self.machine.jobs[f"forward_{size.dtype}"]

    def _model_start(self, size: ModelSize) -> float:
        return self.machine.jobs["start_model"] + size.parameters * self.machine.jobs["load"]


def _pieces(run: Run) -> tuple[Piece, ...]:
    """The matrices that its columns are computed with."""
    return support_of(run.support).computed_with(run.m, run.n, run.d)


def _stage(name: str, needs: Iterable[Need], gpu: bool = False) -> Stage:
    found = tuple(needs)
    seconds = tuple(need.seconds for need in found)
    return Stage(name, seconds, max((need.peak_mb for need in found), default=0.0), gpu)
