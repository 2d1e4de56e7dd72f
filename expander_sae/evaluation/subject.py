"""A run under analysis."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from expander_sae.activations.label_table import FAMILIES, LabelTable
from expander_sae.errors import UserError
from expander_sae.evaluation import features
from expander_sae.evaluation.certificate_rows import evenly
from expander_sae.evaluation.coherence import Places
from expander_sae.evaluation.features import FiringSets
from expander_sae.evaluation.label_families import Documents, Family, family_of
from expander_sae.machine.piece_sizes import EVALUATED_TOKENS
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode, joined
from expander_sae.model.encoders import codes_of
from expander_sae.pursuit.budget import budgeted
from expander_sae.pursuit.inference import ENCODER, inferences
from expander_sae.study.run import Analysis


@dataclass
class Subject:
    """A run under analysis.

    Its activations float32 [N, m] are the encoded ones of the first `test_tokens` test tokens, whose ids and
    places among those are int64 [N]. Features are compared with those of the dense `reference`, and with the
    `labels` of the test tokens.
    """

    autoencoder: SparseAutoencoder
    activations: np.ndarray
    token_id: np.ndarray
    place: np.ndarray
    seed: int
    settings: Analysis
    reference: SparseAutoencoder | None = None
    labels: LabelTable | None = None
    _labelled_codes: dict[str, SparseCode] = field(default_factory=dict)

    @cached_property
    def by(self) -> str:
        """The inference whose codes are analysed: the encoder, or the pursuit that training ended with."""
        return codes_of(self.autoencoder.about)

    @cached_property
    def pursued(self) -> SparseAutoencoder:
        """For pursuits: they take as many features as the encoder does on these tokens."""
        return budgeted(self.autoencoder, self.activations)

    def read_by(self, inference: str) -> SparseAutoencoder:
        """The autoencoder for an inference."""
        return self.autoencoder if inference == ENCODER else self.pursued

    @cached_property
    def code(self) -> SparseCode:
        """The code of every token."""
        return encoded(self.read_by(self.by), self.activations, self.by)

    @cached_property
    def sets(self) -> FiringSets:
        """The code's firing sets."""
        return FiringSets.of([self.code], self.autoencoder.n)

    @cached_property
    def chance(self) -> FiringSets:
        """Uniform sets of the same sizes."""
        return features.random_sets(self.sets, self.seed)

    @cached_property
    def live(self) -> np.ndarray:
        """bool [n]: which features fire."""
        return self.sets.counts > 0

    @cached_property
    def labelled(self) -> np.ndarray:
        """int64: which of the N tokens are read with their labels: whole documents, evenly spread."""
        document = Documents.of(self._column("document", self.place))
        share = self.settings.labelled_tokens / self.settings.test_tokens
        read = evenly(document.count, max(1, round(share * document.count)))
        return np.flatnonzero(np.isin(document.index, read))

    @cached_property
    def documents(self) -> Documents:
        """The documents of the labelled tokens."""
        return Documents.of(self._column("document", self.place[self.labelled]))

    @cached_property
    def families(self) -> dict[str, Family]:
        """Name → the labels of the labelled tokens, of each family that has labels which count."""
        place = self.place[self.labelled]
        all_labels = {name: self._column(column, place) for name, column in FAMILIES.items()}
        found = {name: family_of(name, labels, self.documents) for name, labels in all_labels.items()}
        return {name: family for name, family in found.items() if family.names}

    @property
    def places(self) -> Places:
        """The texts around the labelled tokens."""
        tokens = np.arange(self.settings.test_tokens)
        text, document = self._column("text", tokens).tolist(), self._column("document", tokens)
        return Places(text, document, self.place[self.labelled])

    def labelled_code(self, inference: str) -> SparseCode:
        """The code of the labelled tokens by this inference."""
        if inference not in self._labelled_codes:
            every = len(self.labelled) == len(self.activations)
            self._labelled_codes[inference] = (
                self.code
                if inference == self.by and every
                else encoded(self.read_by(inference), self.activations[self.labelled], inference)
            )
        return self._labelled_codes[inference]

    def _column(self, name: str, place: np.ndarray) -> np.ndarray:
        if self.labels is None:
            raise UserError(
                "evaluation.analyses: found an analysis of labels, expected their table to be given"
            )
        return self.labels.columns[name][place]


@torch.no_grad()
def encoded(
    autoencoder: SparseAutoencoder, activations: np.ndarray, inference: str = "encoder"
) -> SparseCode:
    """The code of activations [N, m], on the CPU."""
    parts, infer = [], inferences(inference)
    for start in range(0, len(activations), EVALUATED_TOKENS):
        h = torch.from_numpy(np.ascontiguousarray(activations[start : start + EVALUATED_TOKENS]))
        code = infer(autoencoder, h.to(autoencoder.b_dec.device))
        parts.append(SparseCode(code.index.cpu(), code.value.cpu()))
    return joined(parts)
