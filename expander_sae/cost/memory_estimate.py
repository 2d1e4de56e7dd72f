"""How much memory a job takes at most, worked out from sizes before it starts. Imports no torch.

Megabytes are 10⁶ bytes of resident memory, pages of a mapped pool included. docs/cluster.md has the
estimates beside what was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from expander_sae.machine import piece_sizes
from expander_sae.masks.shapes import Piece
from expander_sae.masks.supports import support_of
from expander_sae.study.study import Model, Run, Study

VOCABULARIES = {
    "smollm2-135m-instruct": 49_152,
    "pythia-70m-deduped": 50_304,
    "pythia-160m": 50_304,
    "qwen2.5-3b": 151_936,
    "llama-3.2-1b": 128_256,
}
_VOCABULARY = 50_000  # of any other model
FLOAT = 4
INDEX_BYTES = 18  # document, position, token id and norm beside a pool
_MB = 1e6

# Resident megabytes of a process before its data: imports, and compiled kernels.
_BASE = {"plain": 170, "tables": 600, "pool": 235, "model": 400, "extraction": 300, "training": 480}
_BASE |= {"evaluation": 550, "corpus": 490}
_CUDA = 3000  # host memory of a process that uses CUDA beyond that; an estimate, not measured


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


def asked_mb(peak_mb: float, attempt: int = 1) -> int:
    """What a scheduler is asked for: a quarter and 200 MB above the estimate, more at each attempt."""
    return math.ceil((1.25 * peak_mb + 200) * attempt)


def asked_minutes(seconds: float, at_least: int, attempt: int = 1) -> int:
    """Run time that a scheduler is asked for: three times the estimate, since its machine is another."""
    return math.ceil((at_least + 3 * seconds / 60) * attempt)


class Memory:
    """Peak megabytes of each job of a study; `gpu` adds what CUDA takes of the host's memory."""

    tables = float(_BASE["tables"])

    def __init__(self, study: Study, gpu: bool = False) -> None:
        self._config = study.config
        self._gpu = _CUDA if gpu else 0
        self.sizes = {label: ModelSize.of(model) for label, model in study.models.items()}
        self.train_tokens = {label: model.train_tokens for label, model in study.models.items()}
        self._batch_size = study.recipe_settings.batch_size

    @property
    def sequence_tokens(self) -> int:
        """Of the cross-entropy sequences, were all as long as the context."""
        return int(self._config["tokens"]["ce_sequences"] * self._config["corpus"]["context"])

    def model(self, model: Model) -> float:
        """Unpacking a packaged model: as it lies in the package, and as float32."""
        if model.spec["source"] != "package":
            return float(_BASE["model"])
        return _BASE["model"] + 2 * self.sizes[model.label].parameters * FLOAT / _MB

    def corpus(self, tokens: int) -> float:
        """Word 8-grams as far as they are compared exactly, and where the sketches of documents lie."""
        corpus = self._config["corpus"]
        documents = tokens / corpus["context"]
        return _BASE["corpus"] + (100 * min(tokens, corpus["exact_tokens"]) + 200 * documents) / _MB

    def extraction(self, model: Model) -> float:
        """A part of a shard of all layers, or what the model's test compares, and a batch on its way."""
        size, shard = self.sizes[model.label], self._config["tokens"]["shard"]
        row, context = size.width * FLOAT, self._config["corpus"]["context"]
        written = min(shard, piece_sizes.EXTRACTED_TOKENS) * row * len(model.layers)
        # Two documents of full length at once, two alone and half of one, at the last layer too.
        tested = 4.5 * context * row * (len(model.layers) + 1)
        batch = piece_sizes.batch_tokens(self._config["compute"]["batch_tokens"], self._gpu > 0)
        passing = 16 * max(batch, 2 * context) * row
        return _BASE["extraction"] + self._gpu + (size.bytes + max(written, tested) + passing) / _MB

    def pool(self, model: Model, tokens: int) -> float:
        """A row group in a few copies, and the columns of the index in two."""
        row = self.sizes[model.label].width * FLOAT
        return _BASE["pool"] + (6 * piece_sizes.ROW_GROUP * row + 2 * INDEX_BYTES * tokens) / _MB

    def mask(self, n: int, d: int) -> float:
        return _BASE["plain"] + 40 * n * d / _MB

    def training(self, run: Run) -> float:
        """Parameters, gradients, both moments, unit columns and one intermediate of each; row indices."""
        state = (_values(run) * 6 + run.n * run.d) * FLOAT
        scores = self._batch_size * (run.n if _scored_at_once(run) else piece_sizes.SCORED_FEATURES) * FLOAT
        aimed = 3 * piece_sizes.AIMED_ENTRIES * FLOAT  # directions of silent features, and their places
        pool = self.train_tokens[run.model] * (run.m * FLOAT + 2 * INDEX_BYTES)
        stream = run.recipe_settings.stream
        if stream:  # a filling, row groups on their way, norms of the first tokens
            pool = (min(stream, run.train_tokens) + 4 * piece_sizes.ROW_GROUP) * run.m * FLOAT + (1 << 25)
        known, needed = support_of(run.support), state + scores + min(aimed, state)
        if known.fitted:  # tokens and covariances in float64
            fitted = 2 * (2 * piece_sizes.FITTED_TOKENS * run.m + 4 * run.m**2) * FLOAT
            needed = max(needed, fitted) if known.trained else fitted + 3 * run.n * run.m * FLOAT
        return _BASE["training"] + self._gpu + (needed + pool) / _MB

    def evaluation(self, run: Run) -> float:
        """The language model with its logits, the columns, and both pools; seeds follow one another."""
        size, asked = self.sizes[run.model], run.evaluation
        logits = FLOAT * min(piece_sizes.LOGITS, self.sequence_tokens * size.vocabulary)
        columns = 2 * _values(run) * FLOAT
        if _scored_at_once(run):
            columns += 2 * piece_sizes.EVALUATED_TOKENS * run.n * FLOAT
            if "omp" in asked.inference:
                columns += min(FLOAT * run.n**2, piece_sizes.GRAM_BYTES)
        pools = (asked.test_tokens + 2 * self.sequence_tokens) * run.m * FLOAT
        return _BASE["evaluation"] + self._gpu + (size.bytes + logits + columns + pools) / _MB


def _scored_at_once(run: Run) -> bool:
    """Whether a batch has a score of each feature in memory; sparse columns are scored in pieces.

    A pursuit of several matrices has them too, and so has a run that starts from a dense one.
    """
    pieces = _pieces(run)
    return len(pieces) > 1 or any(piece.d == piece.m for piece in pieces)


def _pieces(run: Run) -> tuple[Piece, ...]:
    """What the columns are computed with; a run that is pruned begins written out."""
    known = support_of(run.support)
    return (Piece(run.m, run.n, run.m),) if known.parent else known.computed_with(run.m, run.n, run.d)


def _values(run: Run) -> int:
    """Values of decoder and encoder in memory."""
    decoder = sum(piece.n * piece.d for piece in _pieces(run))
    own = {"tied": 0, "full": run.n * run.m}
    return decoder + own.get(run.encoder, decoder)
