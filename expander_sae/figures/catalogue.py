"""Every figure: its name, caption and the function that draws it. Imports nothing heavy.

A new figure is a function from `Results` to sheets and an entry here; the rule, the report and
docs/figures.md follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expander_sae.figures.layout import Sheet
    from expander_sae.measurements.results import Results


@dataclass(frozen=True)
class Figure:
    """An entry. `function` is ``module:name`` below expander_sae.figures."""

    name: str
    title: str
    caption: str
    function: str

    @property
    def draw(self) -> Callable[[Results], list[Sheet]]:
        """The function itself; importing it imports matplotlib."""
        module, _, name = self.function.partition(":")
        found: Callable[[Results], list[Sheet]] = getattr(
            import_module(f"expander_sae.figures.{module}"), name
        )
        return found

    def sheets(self, results: Results) -> list[Sheet]:
        """Its pages; one that says so where no SAE was trained."""
        from expander_sae.figures.layout import Sheet

        return self.draw(results) or [Sheet(self.title, missing=["any trained SAE"])]


FIGURES = (
    Figure("claims", "Claims", "One row a claim: verdict, estimate with its interval, threshold, and the "
           "interval against the threshold. The PDF has a page for each claim with all of its comparisons.",
           "verdicts:claims"),
    Figure("over_k", "Fidelity over k", "CE recovered and relative error of expanders and of the dense SAE "
           "with k active features of a token, at every d that was run with more than one k.",
           "fidelity:over_k"),
    Figure("controls", "Support diversity: controls", "CE recovered and relative error of every kind of "
           "support at the same number of decoder values, and the difference to the expander seed by seed. "
           "Above 0 (CE recovered) or below 0 (relative error) the other support is better.",
           "supports:controls"),
    Figure("dose", "Support diversity as a dose", "Fidelity over the number p of distinct supports among the "
           "n columns, at equal d·n: from few shared ones that cover every row to one support for each "
           "feature. Rows are equally used where p·d is a multiple of m. A flat line says that diversity as "
           "such adds nothing.", "supports:dose"),
    Figure("matched_budget", "Matched budgets", "The expander beside dense SAEs of the same decoder values, "
           "of the same values in all, and of the same training multiply-adds.", "fidelity:matched_budget"),
    Figure("omp_gain", "What OMP gains", "Relative error by OMP against that by the trained encoder, on the "
           "same frozen decoder, at every d and k. The grey band is the published claim of 15 to 25 %.",
           "fidelity:omp_gain"),
    Figure("pursuits", "Pursuits", "Relative error of the trained encoder, OMP, NIHT, CoSaMP and block OMP "
           "on the same tokens and the same frozen decoders.", "decoding:pursuits"),
    Figure("rounds", "Rounds of a pursuit", "Relative error over the number of rounds in which a pursuit "
           "chooses k columns, and over what these take, of decoders that were trained with as many rounds "
           "and of those that were trained with codes by their encoder.", "rounds:rounds"),
    Figure("encoders", "Encoders", "The same decoder support with encoders that are tied, free, on a support "
           "of their own, or dense.", "fidelity:encoders"),
    Figure("learning_curves", "Learning curves", "Relative error on training batches and the share of "
           "features that fired in none of them, over training steps.", "training:learning_curves"),
    Figure("data_efficiency", "Data efficiency", "Fidelity over the number of distinct training tokens.",
           "training:data_efficiency"),
    Figure("places", "Layers and models", "CE recovered by layer, and the share of the dense SAE's CE "
           "recovered that expanders keep over compression.", "places:places"),
    Figure("storage", "Storage", "Bytes of each part of a dictionary. The recipe regenerates the rows bit "
           "for bit, so a file need not hold them.", "cost:storage"),
    Figure("dead_features", "Dead features", "Features that never fire, over the number of test tokens: what "
           "looks dead in a small test set may only be rare.", "features:dead_features"),
    Figure("collisions", "Collisions", "How the supports of the k features that fire together overlap.",
           "features:collisions"),
    Figure("novelty", "Novelty and token entropy", "Features without a counterpart in the dense SAE, by "
           "firing and by direction, beside what chance gives; and how spread the tokens are that "
           "features fire on.", "features:novelty"),
    Figure("certificates", "Certificates", "The theory's conditions on trained decoders; both hold only "
           "below the dotted line. Then what stays informative on trained, noisy dictionaries.",
           "features:certificates"),
    Figure("synthetic", "Synthetic recovery", "Share of planted supports that OMP with absolute selection "
           "finds exactly; published rates hollow.", "synthetic:synthetic"),
    Figure("speed", "Speed", "Recorded benchmarks: median and quartiles of each task, shape and "
           "implementation.", "cost:speed"),
)  # fmt: skip
"""The figures of the folder `figures`, in the order of the report."""

FRONTIER = Figure(
    "frontier", "The storage–fidelity frontier", "What a dictionary keeps of a layer, over what it takes "
    "to store, first of the pages of frontier.pdf. docs/figures.md explains every mark.", "frontier:frontier",
)  # fmt: skip
"""The figure that the study is made for: it lies beside the folder, and has a rule of its own."""

ENDINGS = (".pdf", ".png", "-column.png")
"""All pages; the first page; the first page in one column."""


def outputs(folder: str) -> list[str]:
    """The files of every figure."""
    return [f"{folder}/{figure.name}{ending}" for figure in FIGURES for ending in ENDINGS]
