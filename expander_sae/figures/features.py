"""What the features are: dead ones, collisions of supports, novelty and token entropy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.lines import Line2D

from expander_sae.figures.fidelity import DENSE, by_place
from expander_sae.figures.layout import Line, Panel, Plot, Sheet, keys, level_key, mark_key, seeds_note
from expander_sae.figures.sources import Sources
from expander_sae.figures.style import MUTED, Look, step_look
from expander_sae.figures.supports import support_look
from expander_sae.measurements.cells import View

_OVER_TOKENS = re.compile(r"dead_fraction_t(\d+)$")
_D = "d, nonzeros of a column (log)"
_MAIN = ("expander", "clustered_cover", "bernoulli", "right_regular", "clustered")


def dead_features(sources: Sources) -> list[Sheet]:
    """Share of dead features over the size of the test set, and over d."""
    return by_place(sources, _dead_features)


def _dead_features(sources: Sources, view: View) -> Sheet:
    title = "Dead features, and how many only look dead in a small test set"
    found = (_OVER_TOKENS.match(str(name)) for name in sources.metrics["metric"].unique())
    sizes = sorted(int(match.group(1)) for match in found if match)
    lines = [
        Line(f"expander, d = {d}", step_look(place),
             {float(size): view.cell(f"dead_fraction_t{size}", "expander", d) for size in sizes})
        for place, d in enumerate(view.ds())
    ]  # fmt: skip
    dense = {float(size): view.cell(f"dead_fraction_t{size}", "dense") for size in sizes}
    lines.append(Line("dense, all n features", DENSE, dense))
    over_d = _by_support(view, "dead_fraction")
    panels, missing = [], []
    if any(line.kept for line in lines):
        panels.append(Panel("over the test set", Plot(lines), "test tokens (log)", "dead features",
                            left=0.74))  # fmt: skip
    else:
        missing.append("dead features over the size of the test set")
    if any(line.kept for line in over_d):
        panels.append(Panel("on the whole test set", Plot(over_d), _D, "dead features", left=0.74))
    every = [cell for line in [*lines, *over_d] for cell in line.cells.values()]
    return Sheet(title, str(view), panels, keys([*lines, *over_d]), seeds_note(every), missing)


def _by_support(view: View, metric: str, supports: Sequence[str] = _MAIN) -> list[Line]:
    """A metric over d, one line a support."""
    shown = [name for name in supports if name in view.supports()]
    return [
        Line(name.replace("_", " "), replace(support_look(name, []), line="-"),
             {float(d): view.cell(metric, name, d) for d in view.ds(name)})
        for name in shown
    ]  # fmt: skip


_NULL = Look(MUTED, "_", ":", 1.0, 6.0)


def _with_null(view: View, metric: str, support: str = "expander") -> list[Line]:
    """A metric of each support, and its null for the expander."""
    null = {float(d): view.cell(f"{metric}_null", support, d) for d in view.ds(support)}
    return [*_by_support(view, metric), Line("null, expander", _NULL, null)]


_COLLISIONS = {
    "collision_coverage": "rows covered |Γ(S)|",
    "collision_deficit": "deficit 1 − |Γ(S)|/(d·k)",
    "collision_duplicate_edges": "duplicate edges",
}


def collisions(sources: Sources) -> list[Sheet]:
    """How far the supports of features that fire together overlap."""
    return _metric_panels(
        sources,
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


def novelty(sources: Sources) -> list[Sheet]:
    """Features without a counterpart in the dense SAE, and the entropy of the tokens they fire on."""
    return _metric_panels(
        sources,
        "Novelty against the dense SAE, and token entropy",
        _NOVELTY,
        "Nulls: features that fire equally often at random (Jaccard, entropy); "
        "random signs on the same supports (cosine). Dense: its next seed against it.",
    )


def _metric_panels(sources: Sources, title: str, metrics: dict[str, str], note: str) -> list[Sheet]:
    def draw(sources: Sources, view: View) -> Sheet:
        legend: list[Line2D] = []
        panels, missing, every = [], [], []
        for metric, label in metrics.items():
            lines = _with_null(view, metric)
            every += [cell for line in lines for cell in line.cells.values()]
            if any(line.kept for line in lines[:-1]):
                dense = view.cell(metric, "dense")
                levels = [(dense.mean, DENSE)] if dense else []
                panels.append(Panel(label, Plot(lines, levels=levels), _D, metric.replace("_", " ")))
                known = {entry.get_label() for entry in legend}
                shown = [*keys(lines), *[level_key(DENSE, "dense, all n features")] * len(levels)]
                legend += [entry for entry in shown if entry.get_label() not in known]
            else:
                missing.append(label)
        return Sheet(title, str(view), panels, legend, [note, *seeds_note(every)] if panels else [], missing)

    return by_place(sources, draw)


_CERTIFICATES = {
    "identifiability": ("identifiability 2β²ε(2k)", "none", 1.0),
    "omp_condition": ("OMP condition β²ε(k+1)(2k+1)", "none", 1.0),
    "flatness": ("flatness β of the columns", "none", None),
    "cumulative_coherence_k": ("cumulative coherence μ₁(k)", "none", None),
    "restricted_sigma_min": ("smallest singular value on used supports", "test", None),
    "recovery_margin_positive": ("share of tokens with a positive recovery margin", "test", None),
}


def certificates(sources: Sources) -> list[Sheet]:
    """The certificates of trained decoders against their thresholds, and what stays informative."""

    def draw(sources: Sources, view: View) -> Sheet:
        legend: list[Line2D] = []
        panels, missing, every = [], [], []
        for metric, (label, split, threshold) in _CERTIFICATES.items():
            inference = "none" if split == "none" else "encoder"
            lines = [
                replace(line, cells={
                    d: view.cell(metric, name, int(d), inference=inference, split=split) for d in line.cells
                })
                for name, line in zip([n for n in _MAIN if n in view.supports()],
                                      _by_support(view, metric), strict=True)
            ]  # fmt: skip
            if not any(line.kept for line in lines):
                missing.append(label)
                continue
            every += [cell for line in lines for cell in line.cells.values()]
            levels = [(threshold, _NULL)] if threshold else []
            positive = all(cell.mean > 0 for line in lines for cell in line.kept.values())
            panels.append(Panel(label, Plot(lines, log_y=bool(threshold) and positive, levels=levels), _D))
            known = {entry.get_label() for entry in legend}
            legend += [entry for entry in keys(lines) if entry.get_label() not in known]
        if panels:
            legend.append(mark_key("dotted: below it the certificate holds", marker="_", color=MUTED, ms=8))
        return Sheet("Certificates of trained decoders", str(view), panels, legend, seeds_note(every),
                     missing)  # fmt: skip

    return by_place(sources, draw)
