"""From the tidy tables to the points of a figure: which seeds, which mean, which interval."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from expander_sae.errors import UserError
from expander_sae.measurements import tables
from expander_sae.measurements.cells import half_interval

MEASURED = ("encoder", "omp")

_CE_METRICS = ("ce_recovered", "ce_recovered_zero_kept", "ce_recovered_mean")
_SETTING = ["model", "corpus", "layer", "recipe", "train_tokens", "steps", "m", "k"]
_PUBLISHED = [
    *["model", "layer", "support", "encoder", "m", "n", "d", "k", "train_tokens"],
    *["inference", "metric", "mean", "seeds"],
]
_PUBLISHED_TOKENS = 200_000
_ROLE_ORDER = ("expander", "bernoulli", "clustered", "clustered_cover", "small_dense", "dense")
_ENCODER_ORDER = ("tied", "warm_tied", "independent")


@dataclass(frozen=True, order=True)
class Setting:
    """What all the runs of one row of panels share. `n` is the number of features of its sparse runs."""

    model: str
    corpus: str
    layer: int
    recipe: str
    train_tokens: int
    steps: int
    m: int
    n: int
    k: int


@dataclass(frozen=True)
class Point:
    """One cell (support, n, d): its seeds and what became of them.

    values: one per seed that neither diverged nor is missing, in the order of the seeds.
    asked: seeds that were run. diverged, missing: those left out, and why.
    stored: learned decoder values.
    """

    n: int
    d: int
    stored: float
    values: tuple[float, ...]
    asked: int
    diverged: int = 0
    missing: int = 0

    @property
    def mean(self) -> float:
        """Mean over the seeds that count; NaN when there is none."""
        return sum(self.values) / len(self.values) if self.values else math.nan

    @property
    def half_interval(self) -> float:
        """Half the 95 % interval of the mean, t(0.975, s−1)·sd/√s over s seeds; NaN below two seeds."""
        return half_interval(self.values)


@dataclass(frozen=True)
class Series:
    """Points of one support, encoder and inference, by number of stored values.

    role: the support, or ``small_dense`` for a dense dictionary of fewer features than the setting's.
    """

    role: str
    encoder: str
    inference: str
    points: tuple[Point, ...]


def read_metrics(path: str | Path) -> pd.DataFrame:
    """The table of `tables.read_metrics`; one that measures neither an autoencoder nor the recovery of
    planted codes, with which a study may begin, raises `UserError` too."""
    frame = tables.read_metrics(path)
    if not (frame["inference"].isin(MEASURED) | (frame["model"] == "synthetic")).any():
        raise UserError(
            f"{path}: found {len(frame)} rows and no measurement of an SAE, expected at least one"
        )
    return frame


def read_published(path: str | Path | None) -> pd.DataFrame:
    """The published figures; None gives an empty table."""
    if path is None:
        return pd.DataFrame(columns=_PUBLISHED)
    return tables.read_published(path, _PUBLISHED, "the table of published figures")


def settings(frame: pd.DataFrame) -> list[Setting]:
    """The rows of panels that a table gives rise to, sorted.

    Of one place the largest budget comes first, the others being steps towards it, and within a budget
    the k with most d: a study measures its other k at the ends of the frontier only.

    A setting has at least one sparse run. Where no run at all is sparse, the dense runs are shown
    alone, with the largest number of features as `n`.
    """
    runs = frame[frame["inference"].isin(MEASURED)]
    sparse = runs[runs["support"] != "dense"]
    keys = sparse if len(sparse) else runs.assign(n=runs.groupby(_SETTING)["n"].transform("max"))
    found = keys[[field.name for field in fields(Setting)]].drop_duplicates()
    all_of_them = [
        Setting(
            str(model), str(corpus), int(layer), str(recipe), int(tokens), int(steps), int(m), int(n), int(k)
        )
        for model, corpus, layer, recipe, tokens, steps, m, n, k in found.to_numpy(object).tolist()
    ]
    points = keys.groupby([field.name for field in fields(Setting)])["d"].nunique().to_dict()
    return sorted(
        all_of_them,
        key=lambda one: (
            *(one.model, one.corpus, one.layer, one.recipe),
            *(-one.train_tokens, -one.steps, one.m, one.n, -points[astuple(one)], one.k),
        ),
    )


def model_cross_entropies(frame: pd.DataFrame, setting: Setting) -> dict[str, float]:
    """The model's own cross-entropies (``ce_clean``, ``ce_zero``, …) for a setting, in nats."""
    rows = frame[
        (frame["support"] == "none")
        & (frame["model"] == setting.model)
        & (frame["corpus"] == setting.corpus)
        & (frame["layer"] == setting.layer)
        & frame["metric"].str.startswith("ce_")
    ]
    exact = rows[(rows["recipe"] == setting.recipe) & (rows["train_tokens"] == setting.train_tokens)]
    chosen = rows[rows["metric"].isin(["ce_clean", "ce_zero"])] if exact.empty else exact
    return {str(metric): float(values.iloc[0]) for metric, values in chosen.groupby("metric")["value"]}


def runs_of(frame: pd.DataFrame, setting: Setting, one_n: bool) -> pd.DataFrame:
    """All rows of a setting's runs, with a column `role`.

    Dense runs of fewer features belong to the setting; where the table has several `n` (not
    `one_n`), only those that match the storage of one of its d: by decoder, or, with an encoder of
    their own, in total. Of a sparse support only the tied encoder is kept where it was run: the frontier is
    of decoders, and other encoders have a figure of their own.
    """
    mine = pd.Series(True, index=frame.index)
    for key in _SETTING:
        mine &= frame[key] == getattr(setting, key)
    dense = frame["support"] == "dense"
    sparse = mine & ~dense & (frame["n"] == setting.n) & (frame["support"] != "none")
    tied = set(frame.loc[sparse & (frame["encoder"] == "tied"), "support"])
    sparse &= (frame["encoder"] == "tied") | ~frame["support"].isin(tied)
    small = mine & dense & (frame["n"] < setting.n)
    if not one_n:
        stored = [int(d) * setting.n for d in frame.loc[sparse, "d"].unique()]
        total = (frame["encoder"] != "tied") & frame["n"].isin([size // (2 * setting.m) for size in stored])
        small &= frame["n"].isin([size // setting.m for size in stored]) | total
    rows = frame[sparse | small | (mine & dense & (frame["n"] == setting.n))].copy()
    rows["role"] = rows["support"].where(
        (rows["support"] != "dense") | (rows["n"] == setting.n), other="small_dense"
    )
    return rows


def series(runs: pd.DataFrame, metric: str) -> list[Series]:
    """The series of one metric from `runs_of`, in drawing order.

    Cross-entropy metrics are read on split ``ce``, all others on ``test``. A run with
    ``diverged`` = 1 is counted and left out; so is a seed without a finite value.
    """
    split = "ce" if metric in _CE_METRICS else "test"
    flagged = runs[(runs["metric"] == "diverged") & (runs["value"] > 0)]
    rows = runs[(runs["metric"] == metric) & (runs["split"] == split) & runs["inference"].isin(MEASURED)]
    stored = runs[runs["metric"] == "decoder_values"]
    found: list[Series] = []
    for role, encoder in sorted(set(zip(rows["role"], rows["encoder"], strict=True)), key=drawing_order):
        for inference in MEASURED:
            chosen = _select(rows, role=role, encoder=encoder, inference=inference)
            if chosen.empty:
                continue
            failed = _select(flagged, role=role, encoder=encoder)
            failed = failed[failed["inference"].isin(["none", "encoder", inference])]
            kept = _select(stored, role=role, encoder=encoder)
            cells = sorted(set(zip(chosen["n"], chosen["d"], strict=True)))
            points = [_point(int(n), int(d), chosen, failed, kept) for n, d in cells]
            points.sort(key=lambda point: point.stored)
            found.append(Series(role, encoder, inference, tuple(points)))
    return found


def published_series(
    published: pd.DataFrame, setting: Setting, metric: str, roles: Sequence[str]
) -> list[Series]:
    """The published means that stand beside a setting: same model, layer, m and k, 200,000 tokens.

    Only supports in `roles`, sparse ones of the same n. Of the dense baselines the tied encoder
    is taken where it was published, as in our sparse runs, otherwise the next one.
    """
    name = re.sub(r"-[0-9a-f]{6}$", "", setting.model).lower()
    rows = published[
        (published["model"].str.lower() == name)
        & (published["layer"] == setting.layer)
        & (published["m"] == setting.m)
        & (published["k"] == setting.k)
        & (published["train_tokens"] == _PUBLISHED_TOKENS)
        & (published["metric"] == metric)
        & published["inference"].isin(MEASURED)
        & published["mean"].notna()
    ].copy()
    small = (rows["support"] == "dense") & (rows["n"] < setting.n)
    rows["role"] = rows["support"].where(~small, other="small_dense")
    rows = rows[small | (rows["n"] == setting.n)]
    found: list[Series] = []
    for role in [role for role in _ROLE_ORDER if role in roles]:
        of_role = rows[rows["role"] == role]
        encoder = next((name for name in _ENCODER_ORDER if (of_role["encoder"] == name).any()), None)
        for inference in MEASURED:
            chosen = _select(of_role, encoder=encoder, inference=inference).drop_duplicates(["n", "d"])
            records = chosen.sort_values(["n", "d"])[["n", "d", "mean", "seeds"]].to_numpy(float).tolist()
            points = tuple(Point(int(n), int(d), n * d, (mean,), int(seeds)) for n, d, mean, seeds in records)
            if points:
                found.append(Series(role, str(encoder), inference, points))
    return found


def _point(n: int, d: int, rows: pd.DataFrame, failed: pd.DataFrame, stored: pd.DataFrame) -> Point:
    """One cell; `rows` holds one metric of one series."""
    cell = _select(rows, n=n, d=d).drop_duplicates("seed").sort_values("seed")
    diverged = {int(seed) for seed in _select(failed, n=n, d=d)["seed"]}
    measured_at = dict(zip(cell["seed"].tolist(), cell["value"].astype(float).tolist(), strict=True))
    asked = diverged | measured_at.keys()
    values = {seed: value for seed, value in measured_at.items() if seed not in diverged}
    finite = tuple(value for value in values.values() if math.isfinite(value))
    measured = _select(stored, n=n, d=d)["value"].dropna()
    size = float(measured.iloc[0]) if len(measured) else float(n * d)
    return Point(n, d, size, finite, len(asked), len(diverged), len(values) - len(finite))


def _select(frame: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Rows whose columns equal the wanted values."""
    mask = np.ones(len(frame), dtype=bool)
    for column, value in wanted.items():
        mask &= (frame[column] == value).to_numpy(dtype=bool)
    return frame[mask]


def drawing_order(pair: tuple[str, str]) -> tuple[int, str, int]:
    """Sort key of (role, encoder): the expander first, the dense dictionary last, newcomers after it."""
    role, encoder = pair
    order = _ROLE_ORDER.index(role) if role in _ROLE_ORDER else len(_ROLE_ORDER)
    return order, role, _ENCODER_ORDER.index(encoder) if encoder in _ENCODER_ORDER else len(_ENCODER_ORDER)
