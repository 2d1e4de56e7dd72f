"""Rows of the analyses that read labels of tokens, for codes by each inference."""

from __future__ import annotations

from collections.abc import Callable

from expander_sae.errors import UserError
from expander_sae.evaluation.chat_endpoint import ChatEndpoint
from expander_sae.evaluation.coherence import judged, questions
from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.probing import SIZES, probes
from expander_sae.evaluation.selectivity import Selectivity, frequent_share
from expander_sae.evaluation.subject import Subject
from expander_sae.measurements.new_rows import Rows


def selectivity_rows(subject: Subject, rows: Rows) -> None:
    """The best single feature of each label, and features that fire on much."""
    for inference in subject.settings.inference:
        code = FeatureValues.of_code(subject.labelled_code(inference), subject.autoencoder.n)
        values = {"frequent_share": frequent_share(code)}
        chance = code.elsewhere(subject.seed)
        for name, family in subject.families.items():
            found = Selectivity(code, family, subject.documents)
            if name == "token":
                values |= found.summary("selectivity")
                null = Selectivity(chance, family, subject.documents)
                values["selectivity_null"] = float(null.scores().mean()[0])
            else:
                values[f"selectivity_{name}"] = float(found.scores().mean()[0])
        rows.add(inference, "test", values)


def probing_rows(subject: Subject, rows: Rows) -> None:
    """Sparse probes of every family; a plain name is the mean over those that a corpus gives by itself."""
    for inference in subject.settings.inference:
        code = FeatureValues.of_code(subject.labelled_code(inference), subject.autoencoder.n)
        scores = {name: probes(code, family, subject.documents) for name, family in subject.families.items()}
        for size in SIZES:
            means = {name: float(found[size].mean()[0]) for name, found in scores.items()}
            values = {f"probe_f1_{size}_{name}": mean for name, mean in means.items()}
            if own := [mean for name, mean in means.items() if name != "user"]:
                values[f"probe_f1_{size}"] = sum(own) / len(own)
            rows.add(inference, "test", values)


def coherence_rows(subject: Subject, rows: Rows) -> None:
    """Whether a language model can tell where a feature is silent."""
    asked = subject.settings.judge
    if asked is None:
        raise UserError("evaluation.judge: missing, expected who judges coherence")
    judge = ChatEndpoint(asked.url, asked.model, asked.key)
    for inference in subject.settings.inference:
        code = FeatureValues.of_code(subject.labelled_code(inference), subject.autoencoder.n)
        sizes = (asked.features, asked.examples, asked.window)
        about = questions(code, subject.places, subject.seed, *sizes)
        rows.add(inference, "test", judged(about, judge.ask, asked.examples))


LABELLED: dict[str, Callable[[Subject, Rows], None]] = {
    "selectivity": selectivity_rows,
    "probing": probing_rows,
    "coherence": coherence_rows,
}
"""Analysis → its rows."""
