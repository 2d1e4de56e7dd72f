"""What the features are: dead ones, collisions of supports, novelty and token entropy."""

from __future__ import annotations

import re
from dataclasses import replace

from expander_sae.figures.candidate_words import kind_text
from expander_sae.figures.layout import Panel, Sheet
from expander_sae.figures.place_sheets import DENSE, OVER_D, by_place, lines_sheet
from expander_sae.figures.plots import Line, Plot, level_key, mark_key
from expander_sae.figures.style import MUTED, Look, looks_for, step_look
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View

_OVER_TOKENS = re.compile(r"dead_fraction_t(\d+)$")
_MAIN = ("expander", "clustered_cover", "bernoulli", "right_regular", "clustered")


@by_place
def dead_features(view: View) -> Sheet:
    """Share of dead features over the size of the test set, and over d."""
    title = "Dead features, and how many only look dead in a small test set"
    found = map(_OVER_TOKENS.match, view.index.metrics)
    sizes = sorted(int(match.group(1)) for match in found if match)

    def over_tokens(support: str, d: int | None = None) -> dict[float, Estimate]:
        return {float(size): view.estimate(f"dead_fraction_t{size}", support, d) for size in sizes}

    lines = [
        Line(f"expander, d = {d}", step_look(place), over_tokens("expander", d))
        for place, d in enumerate(view.ds())
    ]
    lines.append(Line("dense, all n features", DENSE, over_tokens("dense")))
    over_d = _by_support(view, "dead_fraction")
    panels, missing = [], []
    if any(line.kept for line in lines):
        panels.append(Panel("over the test set", Plot(lines), "test tokens (log)", "dead features",
                            left=0.74))  # fmt: skip
    else:
        missing.append("dead features over the size of the test set")
    if any(line.kept for line in over_d):
        panels.append(Panel("on the whole test set", Plot(over_d), OVER_D, "dead features", left=0.74))
    return lines_sheet(title, view, panels, [*lines, *over_d], missing=missing)


def _by_support(view: View, metric: str, **measured: str) -> list[Line]:
    """A metric over d, one line a support. measured: its inference and split."""
    looks = looks_for(view.index.supports)
    return [
        Line(kind_text(name), replace(looks(name, "encoder"), line="-"),
             {float(d): view.estimate(metric, name, d, **measured) for d in view.ds(name)})
        for name in _MAIN if name in view.supports()
    ]  # fmt: skip


_NULL = Look(MUTED, "_", ":", 1.0, 6.0)


_COLLISIONS = {
    "collision_coverage": "rows covered |Γ(S)|",
    "collision_deficit": "deficit 1 − |Γ(S)|/(d·k)",
    "collision_duplicate_edges": "duplicate edges",
}


def collisions(results: Results) -> list[Sheet]:
    """How far the supports of features that fire together overlap."""
    return _metric_panels(
        results,
        "Collisions of the k supports that are active together",
        _COLLISIONS,
        "Null: the same codes, their features renamed at random.",
    )


_NOVELTY = {
    "novel_share_jaccard": "novel by firing: best Jaccard < 0.1",
    "novel_share_cosine": "novel by direction: max |cos| < 0.3",
    "token_entropy": "token entropy of a feature, bits",
    "token_entropy_novel": "token entropy of novel features, bits",
}


def novelty(results: Results) -> list[Sheet]:
    """Features without a counterpart in the dense SAE, and the entropy of the tokens they fire on."""
    return _metric_panels(
        results,
        "Novelty against the dense SAE, and token entropy",
        _NOVELTY,
        "Nulls: features that fire equally often at random (Jaccard, entropy); "
        "random signs on the same supports (cosine). Dense: its next seed against it.",
    )


def _metric_panels(results: Results, title: str, metrics: dict[str, str], note: str) -> list[Sheet]:
    def draw(view: View) -> Sheet:
        panels, missing, every, compared = [], [], [], False
        for metric, label in metrics.items():
            lines = _by_support(view, metric)
            null = {float(d): view.estimate(f"{metric}_null", "expander", d) for d in view.ds()}
            if any(line.kept for line in lines):
                dense = view.estimate(metric, "dense")
                levels = [(dense.mean, DENSE)] if dense else []
                lines.append(Line("null, expander", _NULL, null))
                panels.append(Panel(label, Plot(lines, levels=levels), OVER_D, metric.replace("_", " ")))
                every += lines
                compared |= bool(dense)
            else:
                missing.append(label)
        marks = [level_key(DENSE, "dense, all n features")] if compared else []
        return lines_sheet(title, view, panels, every, marks, [note] if panels else [], missing)

    return by_place(draw)(results)


_CERTIFICATES = {
    "identifiability": ("identifiability 2β²ε(2k)", "none", 1.0),
    "omp_condition": ("OMP condition β²ε(k+1)(2k+1)", "none", 1.0),
    "flatness": ("flatness β of the columns", "none", None),
    "cumulative_coherence_k": ("cumulative coherence μ₁(k)", "none", None),
    "restricted_sigma_min": ("smallest singular value on used supports", "test", None),
    "recovery_margin_positive": ("share of tokens with a positive recovery margin", "test", None),
}


@by_place
def certificates(view: View) -> Sheet:
    """The certificates of trained decoders against their thresholds, and what stays informative."""
    panels, missing, every = [], [], []
    for metric, (label, split, threshold) in _CERTIFICATES.items():
        lines = _by_support(view, metric, inference="none" if split == "none" else "encoder", split=split)
        if not any(line.kept for line in lines):
            missing.append(label)
            continue
        every += lines
        levels = [(threshold, _NULL)] if threshold else []
        positive = all(cell.mean > 0 for line in lines for cell in line.kept.values())
        panels.append(Panel(label, Plot(lines, log_y=bool(threshold) and positive, levels=levels), OVER_D))
    mark = mark_key("dotted: below it the certificate holds", marker="_", color=MUTED, ms=8)
    marks = [mark] if panels else []
    return lines_sheet("Certificates of trained decoders", view, panels, every, marks, missing=missing)
