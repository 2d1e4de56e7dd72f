"""The words of the frontier figure: titles, labels, notes and captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from expander_sae.measurements.points import Point, Series, Setting

CITATION = "[1] R. Mendoza-Smith, Expander Sparse Autoencoders, arXiv 2607.01799 (2026)"


@dataclass(frozen=True)
class Kind:
    """A kind of page: two metrics, their axis labels, and which inference it is about (None: both)."""

    name: str
    title: str
    metrics: tuple[str, str]
    labels: tuple[str, str]
    only_inference: str | None = None
    supplementary: bool = True

    def shows(self, series: Series) -> bool:
        """Whether a series belongs on this page: both inferences of the expander and the dense
        dictionary, the encoder of the controls; or everything decoded by one pursuit."""
        if self.only_inference is not None:
            return series.inference == self.only_inference
        return series.inference == "encoder" or series.role in ("expander", "dense")


_CE = "CE recovered (1: the model itself, 0: layer zeroed)"
_ERROR = "relative error  ‖h − ĥ‖ / ‖h‖"

KINDS: tuple[Kind, ...] = (
    Kind(
        "main",
        "How much of a layer survives a sparse autoencoder as its decoder shrinks",
        ("ce_recovered", "relative_error"),
        (f"higher is better ↑\n{_CE}", f"lower is better ↓\n{_ERROR}"),
        supplementary=False,
    ),
    Kind(
        "ablations",
        "Supplement: CE recovered against two other baselines",
        ("ce_recovered_zero_kept", "ce_recovered_mean"),
        ("CE recovered, zero-ablation that passes\nthe same tokens through",
         "CE recovered, mean-ablation that passes\nthe same tokens through"),
    ),
    Kind(
        "omp",
        "Supplement: every decoder read by OMP instead of its trained encoder",
        ("ce_recovered", "relative_error"),
        (f"higher is better ↑\n{_CE}", f"lower is better ↓\n{_ERROR}"),
        only_inference="omp",
    ),
)  # fmt: skip

_NAMES = {
    "expander": "expander",
    "bernoulli": "Bernoulli",
    "clustered": "clustered",
    "clustered_cover": "covering clustered",
    "small_dense": "small dense",
    "dense": "dense",
}
_LABELS = {
    "expander": "Expander (d random rows per column)",
    "bernoulli": "Bernoulli: as many nonzeros, anywhere",
    "clustered": "Clustered: ⌊m/d⌋ disjoint supports, shared",
    "clustered_cover": "Covering clustered: supports wrap, no row left out",
    "small_dense": "Small dense: n′ = ⌊d·n/m⌋ features, equal storage",
    "dense": "Dense, all n features",
}
_ENCODERS = {
    "warm_tied": "own encoder (started at the decoder)",
    "independent": "own encoder (random start)",
    "own_support": "own encoder (support of its own)",
    "full": "own encoder (dense)",
}


def series_label(series: Series, by_pursuit: bool = False) -> str:
    """What the legend calls a series."""
    label = _LABELS.get(series.role, series.role.replace("_", " "))
    own = _ENCODERS.get(series.encoder)
    if own:
        label = _NAMES.get(series.role, series.role)
        label = label[0].upper() + label[1:] + (" (n′ < n features)" if series.role == "small_dense" else "")
    if series.inference == "omp":
        label += "" if by_pursuit else ", OMP"
        return f"{label} ({series.encoder.replace('_', '-')} SAE)" if own else label
    if own:
        return f"{label}, {own}"
    return f"{label}, trained encoder" if series.role in ("expander", "dense") else label


def headings(setting: Setting) -> tuple[str, str]:
    """Bold heading of a row, and its second line."""
    return (
        f"{setting.model}, after layer {setting.layer}: "
        f"k = {setting.k} of n = {setting.n:,} features per token",
        f"layer width m = {setting.m:,}; trained for {setting.steps:,} steps on {setting.train_tokens:,} "
        f"tokens of {setting.corpus}, recipe “{setting.recipe}”",
    )


def notes(
    setting: Setting,
    panels: Sequence[Sequence[Series]],
    entropies: dict[str, float],
    kind: Kind,
    off_scale: Sequence[Sequence[tuple[Series, Point]]] = ((), ()),
) -> list[str]:
    """Lines below a row: seeds, diverged runs, what was left out, and what the CE scale means here."""
    found: list[str] = []
    every = [one for panel in panels for one in panel]
    if every:
        found.append(f"Training seeds per cell: {_seed_counts(every)}.")
    diverged = _failures(every, "diverged")
    if diverged:
        found.append(f"Diverged, never averaged in: {diverged}.")
    missing = _failures(every, "missing")
    if missing:
        found.append(f"Without a value, left out: {missing}.")
    too_small = _too_small(setting, every)
    if too_small:
        found.append(f"No small dense dictionary at {too_small}: n′ would not exceed 2k = {2 * setting.k}.")
    for metric, far in zip(kind.metrics, off_scale, strict=True):
        if far:
            values = "; ".join(f"{_series_cell(one, point)} {point.mean:.2f}" for one, point in far)
            name = "relative error" if metric == "relative_error" else "CE recovered"
            found.append(f"Published {name} [1] too far off for the panel: {values.replace('-', '−')}.")
    if kind.name != "ablations" and {"ce_clean", "ce_zero"} <= entropies.keys():
        found.append(
            f"Cross-entropy of the model itself {entropies['ce_clean']:.2f} nats per token (CE recovered 1), "
            f"with this layer's output zeroed {entropies['ce_zero']:.2f} (CE recovered 0)."
        )
    if kind.name == "ablations" and {"ce_clean", "ce_zero_kept", "ce_mean_kept"} <= entropies.keys():
        found.append(
            f"Cross-entropy of the model itself {entropies['ce_clean']:.2f} nats per token (1); all but the "
            f"tokens passed through zeroed {entropies['ce_zero_kept']:.2f} (0, left), "
            f"set to the mean {entropies['ce_mean_kept']:.2f} (0, right)."
        )
    return found


def caption(kind: Kind, every: Sequence[Series], published: bool) -> str:
    """The caption of a page: what a reader needs to know to read it without any other text."""
    sentences = [
        "Each sparse autoencoder (SAE) replaces a layer's output h (m numbers per token) by ĥ = Wx + b with "
        "k nonzero features x. A sparse decoder W learns d values in each of its n columns, a dense one m: "
        "m/d times fewer.",
    ]
    if kind.name == "ablations":
        sentences.append(
            "CE recovered = (CE of the ablated model − CE with the SAE) / (CE ablated − CE of the model). "
            "Tokens that the recipe does not encode pass through unchanged in the ablated model too, so they "
            "earn nothing."
        )
    else:
        sentences.append(
            "CE recovered = (CE zeroed − CE with the SAE) / (CE zeroed − CE of the model), CE being the "
            "cross-entropy of the next token. Relative error is the mean over the held-out tokens that the "
            "SAE encodes."
        )
    roles = {one.role for one in every}
    pursued = any(one.inference == "omp" for one in every)
    if any(len(point.values) > 1 for one in every for point in one.points):
        sentences.append("Large markers are means over seeds.")
    if len(roles - {"dense"}) > 1:
        sentences.append(
            "Marks at one d are set side by side so that they can be told apart; their true place is the "
            "thin vertical line."
        )
    if kind.only_inference == "omp":
        sentences.append(
            "OMP: orthogonal matching pursuit picks k columns of the frozen decoder and refits them."
        )
    elif pursued:
        sentences.append(
            "Trained encoder: one matrix product and the k largest. OMP: orthogonal matching pursuit picks k "
            "columns of the same frozen decoder and refits them."
        )
        if roles - {"expander", "dense"}:
            sentences.append("All other supports are read by their trained encoders.")
    if published:
        sentences.append(
            f"{CITATION}: mean over its seeds at the same k and n, on its own corpus and training, so hollow "
            "and filled marks need not coincide."
        )
    return " ".join(sentences)


def _seed_counts(every: Sequence[Series]) -> str:
    """``3 for expander; 1 for dense``: seeds run per cell, a range where cells differ."""
    counts: dict[str, list[int]] = {}
    for one in every:
        counts.setdefault(_NAMES.get(one.role, one.role), []).extend(point.asked for point in one.points)
    texts: dict[str, list[str]] = {}
    for name, asked in counts.items():
        text = str(min(asked)) if min(asked) == max(asked) else f"{min(asked)}–{max(asked)}"
        texts.setdefault(text, []).append(name)
    return "; ".join(f"{text} for {', '.join(names)}" for text, names in texts.items())


def _failures(every: Sequence[Series], what: str) -> str:
    """``expander d = 7 1/3``: cells with failed seeds, each named once."""
    worst: dict[tuple[str, int, int], Point] = {}
    for one in every:
        for point in one.points:
            cell = (one.role, point.n, point.d)
            if getattr(point, what) > (getattr(worst[cell], what) if cell in worst else 0):
                worst[cell] = point
    return "; ".join(
        f"{_NAMES.get(role, role)} {_cell(role, n, d)} ({getattr(point, what)} of {point.asked})"
        for (role, n, d), point in worst.items()
    )


def _series_cell(series: Series, point: Point) -> str:
    name = f"{_NAMES.get(series.role, series.role)} {_cell(series.role, point.n, point.d)}".strip()
    return f"{name}, OMP:" if series.inference == "omp" else f"{name}:"


def _cell(role: str, n: int, d: int) -> str:
    return f"n′ = {n}" if role == "small_dense" else "" if role == "dense" else f"d = {d}"


def _too_small(setting: Setting, every: Sequence[Series]) -> str:
    """The d at which a dense dictionary of equal storage is left out, where others are shown."""
    if not any(one.role == "small_dense" for one in every):
        return ""
    sparse = {point.d for one in every if one.role not in ("small_dense", "dense") for point in one.points}
    have = {point.n for one in every if one.role == "small_dense" for point in one.points}
    matched = {d: d * setting.n // setting.m for d in sparse}
    out = sorted(d for d, features in matched.items() if features <= 2 * setting.k and features not in have)
    return ", ".join(f"d = {d} (n′ = {matched[d]})" for d in out)
