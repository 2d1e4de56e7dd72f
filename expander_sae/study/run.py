"""One training: what tells it from another, how it is measured, and where it lies.

Nothing else states the columns of a run: configurations are expanded into `Run`s, jobs and weights hold
their specs, tables have their columns, and look-ups go by `Cell`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self, get_type_hints

from expander_sae.masks.supports import support_of
from expander_sae.model.precisions import FLOAT32, is_trained
from expander_sae.pursuit.inference import ENCODER
from expander_sae.study.imported import Imported
from expander_sae.study.json_objects import LATER, record, stated
from expander_sae.study.recipes import Recipe

RESULTS = "results"


class _Settings:
    """What a job is told of a run."""

    @classmethod
    def from_json(cls, settings: Any) -> Self:
        """Those that a job's JSON holds; raises `UserError` on a malformed one."""
        return record(cls, settings, cls.__name__.lower())

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object that the job is told, where tuples stand for lists."""
        return stated(self)


@dataclass(frozen=True)
class Evaluation(_Settings):
    """How well a run rebuilds: what is measured, and on how much; nothing unless something is named.

    Every way of `inference` is measured on the test tokens; pursuits on `pursued_tokens` of them, spread
    evenly, where that is not 0. What those in `cross_entropy` rebuild is spliced into the language model;
    with `train_cross_entropy` the encoder's also on documents of the training pool.
    """

    inference: tuple[str, ...] = ()
    cross_entropy: tuple[str, ...] = ()
    test_tokens: int = 0
    ce_sequences: int = 0
    train_cross_entropy: bool = False
    pursued_tokens: int = field(default=0, metadata=LATER)


@dataclass(frozen=True)
class JudgeSettings:
    """Who judges coherence, and of how many features: `evaluation.judge` of the configuration."""

    url: str
    model: str
    key: str | None
    features: int
    examples: int
    window: int


@dataclass(frozen=True)
class Analysis(_Settings):
    """What else is measured of a run; nothing unless an analysis is named.

    `pursuits` are compared, beside the encoder and OMP, on `pursuit_tokens` test tokens. `reference` is the
    folder of the dense run that novelty is measured against, if there is one. Codes by every way of
    `inference` are compared with labels of the tokens, those of whole documents with about `labelled_tokens`
    test tokens; `labels` is the user's own file of them, and `judge` the model that is asked about coherence,
    if it is. JSON leaves out what no analysis of labels asks for.
    """

    analyses: tuple[str, ...] = ()
    test_tokens: int = 0
    pursuits: tuple[str, ...] = ()
    pursuit_tokens: int = 0
    reference: str | None = None
    inference: tuple[str, ...] = ()
    labelled_tokens: int = 0
    labels: str | None = None
    judge: JudgeSettings | None = None

    @classmethod
    def from_json(cls, settings: Any) -> Self:
        absent = {name: value for name, value in vars(cls()).items() if name in _OF_LABELS}
        return super().from_json({**absent, **settings} if isinstance(settings, dict) else settings)

    @property
    def json(self) -> dict[str, Any]:
        default = vars(Analysis())
        judge = None if self.judge is None else vars(self.judge)
        return {
            name: value
            for name, value in (super().json | {"judge": judge}).items()
            if name not in _OF_LABELS or value != default[name]
        }


_OF_LABELS = ("inference", "labelled_tokens", "labels", "judge")


@dataclass(frozen=True, order=True)
class Cell:
    """What the runs share that differ in their seed alone. `precision`: one of `RUN_PRECISIONS`.

    `codes`: what the decoder was trained with at the end: ``encoder``, or the name of a pursuit.
    """

    model: str
    corpus: str
    layer: int
    recipe: str
    support: str
    encoder: str
    m: int
    n: int
    d: int
    k: int
    precision: str = field(default=FLOAT32, kw_only=True)
    codes: str = field(default=ENCODER, kw_only=True)
    train_tokens: int
    steps: int

    @classmethod
    def of(cls, values: Iterable[Any]) -> Cell:
        """The cell of these values of `CELL_COLUMNS`, in that order."""
        return Cell(**dict(zip(CELL_COLUMNS, values, strict=True)))

    @cached_property
    def name(self) -> str:
        """The path below results/."""
        pursued = "" if self.codes == ENCODER else f"_{self.codes}"
        stored = "" if self.precision == FLOAT32 else f"_{self.precision}"
        return (
            f"{self.model}/{self.corpus}/layer{self.layer}/{self.recipe}_t{self.train_tokens}_s{self.steps}"
            f"/{self.support}-{self.encoder}/n{self.n}_d{self.d}_k{self.k}{pursued}{stored}"
        )


@dataclass(frozen=True, order=True)
class Run(Cell):
    """One training, its recipe, and how it is measured.

    Equality, order and hash leave out what follows from the labels and what is measured afterwards, and where
    an `imported` autoencoder lies: its support says what its files hold.
    """

    seed: int
    recipe_settings: Recipe = field(compare=False, repr=False)
    evaluation: Evaluation = field(default=Evaluation(), compare=False, repr=False)
    analysis: Analysis = field(default=Analysis(), compare=False, repr=False)
    imported: Imported | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_spec(cls, spec: Any) -> Run:
        """The run of a training job, a run.json or a workflow's weights: the inverse of `spec`.

        Raises:
            UserError: no JSON object, a key is missing or unknown, or a value has another type.
        """
        told = LEFT_OUT | spec if isinstance(spec, dict) else spec
        return record(cls, told, "spec", (*RUN_COLUMNS, "recipe_settings"))

    @property
    def columns(self) -> dict[str, Any]:
        """Column → value, in the tables' order."""
        return {name: getattr(self, name) for name in RUN_COLUMNS}

    @property
    def told(self) -> dict[str, Any]:
        """`columns` without those of `LEFT_OUT` that have the value there: jobs are told, and digests
        made of, what they were before there were such columns."""
        return {name: value for name, value in self.columns.items() if LEFT_OUT.get(name) != value}

    @property
    def spec(self) -> dict[str, Any]:
        """What the training job is told, as a JSON object."""
        return {**self.told, "recipe_settings": self.recipe_settings.settings}

    @cached_property
    def cell(self) -> Cell:
        return Cell.of(getattr(self, name) for name in CELL_COLUMNS)

    @cached_property
    def name(self) -> str:
        """The path below results/."""
        return f"{self.cell.name}_seed{self.seed}"

    @cached_property
    def path(self) -> str:
        return f"{RESULTS}/{self.name}"

    @property
    def mask(self) -> str | None:
        """The mask's file; None where no recipe generates one, or a run with that mask was trained before."""
        file = f"{RESULTS}/masks/{self.support}_m{self.m}_n{self.n}_d{self.d}_seed{self.seed}.json"
        return file if support_of(self.support).make and self.is_trained and not self.is_pursued else None

    @property
    def is_trained(self) -> bool:
        """Whether it is what steps or its files made; otherwise it only rounds what its parent ended with."""
        return is_trained(self.precision) or self.is_imported

    @property
    def is_imported(self) -> bool:
        """Whether it is read from files of elsewhere."""
        return support_of(self.support).imported

    @property
    def is_pursued(self) -> bool:
        """Whether its decoder was trained with codes by a pursuit, after those by an encoder."""
        return self.codes != ENCODER

    @property
    def own_codes(self) -> tuple[str, ...]:
        """The inferences that it was trained for: a tied encoder is spoilt by training with a pursuit."""
        own = (ENCODER,) if not self.is_pursued or self.encoder != "tied" else ()
        return own if self.codes in own else (*own, self.codes)

    @cached_property
    def dense(self) -> Run:
        """The full dense tied run that this one is compared with or pruned from: same layer, data,
        recipe, n, k and seed, in float32. It is trained and not measured, unless the study asks for it."""
        dense = replace(self, support="dense", encoder="tied", d=self.m, **LEFT_OUT)
        return dense.unmeasured

    @property
    def parent(self) -> Run | None:
        """The run whose weights this one starts from or rounds, if any."""
        if self.is_imported:
            return None
        if not self.is_trained:
            return replace(self, precision=FLOAT32).unmeasured
        if self.is_pursued:
            return replace(self, codes=ENCODER).unmeasured
        return self.dense if support_of(self.support).parent else None

    @property
    def unmeasured(self) -> Run:
        """The same run, of which nothing is measured."""
        return replace(self, evaluation=Evaluation(), analysis=Analysis())

    @property
    def ancestors(self) -> tuple[Run, ...]:
        """The parent, its parent, and so on."""
        return () if self.parent is None else (self.parent, *self.parent.ancestors)

    @property
    def unaided(self) -> Run:
        """Stands in the tables for the language model itself, where no autoencoder is."""
        own = replace(self, support="none", encoder="none", n=0, d=0, k=0, steps=0, seed=0)
        return replace(own, **LEFT_OUT)


CELL_PATTERN = (
    r"[^/]+/[^/]+/layer\d+/[^/]+/[^/]+/n\d+_d\d+_k\d+"
    r"(?:(?:_[a-z]+)+(?:_\d+)?)?(?:_[a-z]+\d+(?:_trained)?)?"
)
"""The names of cells, as a regular expression."""

CELL_COLUMNS = tuple(column.name for column in fields(Cell))
"""What tells a cell from another, in the order of the tables' columns."""

RUN_COLUMNS: dict[str, type] = {name: get_type_hints(Run)[name] for name in (*CELL_COLUMNS, "seed")}
"""What tells a run from another, in that order, and the type of each."""

LEFT_OUT: dict[str, Any] = {"precision": FLOAT32, "codes": ENCODER}
"""Columns that specs and older tables can lack, and the value that they then have."""

UNSAID = ("codes",)
"""Those of them that a table leaves out in which all rows have that value, so that its bytes stay."""
