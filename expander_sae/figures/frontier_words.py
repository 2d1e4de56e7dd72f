"""The words of the frontier: titles, labels, headings, notes and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from expander_sae.figures.frontier_series import Point, Series
from expander_sae.masks.supports import described, followed
from expander_sae.measurements.view import View

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
        return series.inference == "encoder" or series.role in followed()

    def scale(self, entropies: Mapping[str, float]) -> list[str]:
        """What 0 and 1 of CE recovered mean, where the model's own cross-entropies are known."""
        if self.name == "ablations" and {"ce_clean", "ce_zero_kept", "ce_mean_kept"} <= entropies.keys():
            return [
                f"Cross-entropy of the model itself {entropies['ce_clean']:.2f} nats per token (1); all but "
                f"the tokens passed through zeroed {entropies['ce_zero_kept']:.2f} (0, left), set to the "
                f"mean {entropies['ce_mean_kept']:.2f} (0, right)."
            ]
        if self.name != "ablations" and {"ce_clean", "ce_zero"} <= entropies.keys():
            return [
                f"Cross-entropy of the model itself {entropies['ce_clean']:.2f} nats per token (CE recovered "
                f"1), with this layer's output zeroed {entropies['ce_zero']:.2f} (CE recovered 0)."
            ]
        return []


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

_ENCODERS = {
    "warm_tied": "own encoder (started at the decoder)",
    "independent": "own encoder (random start)",
    "own_support": "own encoder (support of its own)",
    "full": "own encoder (dense)",
}


def series_label(series: Series, by_pursuit: bool = False) -> str:
    """What the legend calls a series."""
    label = described(series.role).legend
    own = _ENCODERS.get(series.encoder)
    if own:
        label = described(series.role).short
        label = label[0].upper() + label[1:] + (" (n′ < n features)" if series.role == "small_dense" else "")
    if series.inference == "omp":
        label += "" if by_pursuit else ", OMP"
        return f"{label} ({series.encoder.replace('_', '-')} SAE)" if own else label
    if own:
        return f"{label}, {own}"
    return f"{label}, trained encoder" if series.role in followed() else label


def headings(view: View) -> tuple[str, str]:
    """Bold heading of a row, and its second line."""
    place = view.place
    return (
        f"{place.model}, after layer {place.layer}: k = {view.k} of n = {place.n:,} features per token",
        f"layer width m = {place.m:,}; trained for {view.steps:,} steps on {view.train_tokens:,} tokens of "
        f"{place.corpus}, recipe “{place.recipe}”",
    )


def notes(
    view: View, every: Sequence[Series], kind: Kind, off_scale: Sequence[Sequence[tuple[Series, Point]]]
) -> list[str]:
    """Lines below a row: seeds, diverged runs, what was left out, and what the CE scale means here."""
    found: list[str] = []
    if every:
        found.append(f"Training seeds per cell: {_seed_counts(every)}.")
    if diverged := _failures(every, "diverged"):
        found.append(f"Diverged, never averaged in: {diverged}.")
    if missing := _failures(every, "missing"):
        found.append(f"Without a value, left out: {missing}.")
    if too_small := _too_small(view, every):
        found.append(f"No small dense dictionary at {too_small}: n′ would not exceed 2k = {2 * view.k}.")
    for metric, far in zip(kind.metrics, off_scale, strict=True):
        if far:
            values = "; ".join(f"{_series_cell(one, point)} {point.estimate.mean:.2f}" for one, point in far)
            name = "relative error" if metric == "relative_error" else "CE recovered"
            found.append(f"Published {name} [1] too far off for the panel: {values.replace('-', '−')}.")
    return [*found, *kind.scale(view.entropies())]


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
    if any(len(point.estimate.values) > 1 for one in every for point in one.points):
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
        if roles - set(followed()):
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
        counts.setdefault(described(one.role).short, []).extend(point.estimate.asked for point in one.points)
    texts: dict[str, list[str]] = {}
    for name, asked in counts.items():
        text = str(min(asked)) if min(asked) == max(asked) else f"{min(asked)}–{max(asked)}"
        texts.setdefault(text, []).append(name)
    return "; ".join(f"{text} for {', '.join(names)}" for text, names in texts.items())


def _failures(every: Sequence[Series], what: str) -> str:
    """``expander d = 7 (1 of 3)``: cells with failed seeds, each named once, with their largest number."""
    worst: dict[str, tuple[int, int]] = {}
    for one in every:
        for point in one.points:
            name = f"{described(one.role).short} {_sized(one.role, point)}"
            failed = getattr(point.estimate, what)
            if failed > worst.get(name, (0, 0))[0]:
                worst[name] = (failed, point.estimate.asked)
    return "; ".join(f"{name} ({failed} of {asked})" for name, (failed, asked) in worst.items())


def _series_cell(series: Series, point: Point) -> str:
    name = f"{described(series.role).short} {_sized(series.role, point)}".strip()
    return f"{name}, OMP:" if series.inference == "omp" else f"{name}:"


def _sized(role: str, point: Point) -> str:
    return {"small_dense": f"n′ = {point.cell.n}", "dense": ""}.get(role, f"d = {point.cell.d}")


def _too_small(view: View, every: Sequence[Series]) -> str:
    """The d at which a dense dictionary of equal storage is left out, where others are shown."""
    have = {point.cell.n for one in every if one.role == "small_dense" for point in one.points}
    if not have:
        return ""
    sparse = {point.cell.d for one in every if not described(one.role).full for point in one.points}
    matched = {d: d * view.place.n // view.place.m for d in sparse}
    out = sorted(d for d, features in matched.items() if features <= 2 * view.k and features not in have)
    return ", ".join(f"d = {d} (n′ = {matched[d]})" for d in out)
