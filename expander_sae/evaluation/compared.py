"""Any autoencoders measured on the same activations: bytes, fidelity, features, and the model's loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.evaluation.cross_entropy import recovered, sequence_edges, spliced_sums
from expander_sae.evaluation.features import FiringSets, token_entropy
from expander_sae.evaluation.reconstruction import measure, reconstruct
from expander_sae.evaluation.storage import code_bits, storage
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.budget import budgeted
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.pursuit.inference import Inference, inferences

FREQUENT = 0.1
"""A feature that fires on more than this share of the tokens is no sparse one."""


@dataclass(frozen=True)
class Measured:
    """One autoencoder on the tokens that it encodes.

    Args:
        name: what it is called on the page.
        bytes: those of its weights file, `storage_total_bytes`.
        n, k: features, and how many a token has: its k, or where thresholds decide the encoder's mean.
        code_bits: of a token's code with that k.
        encoded_share: share of the tokens that it encodes.
        metrics: inference → metric → value, those of `expander_sae.evaluate`. The encoder's also has
            `frequent_fraction`, the share of features that fire on more than `FREQUENT` of the tokens; with
            token ids `token_entropy`, in bits, the mean over live features; with a language model each has
            `ce_recovered`.
    """

    name: str
    bytes: float
    n: int
    k: int
    code_bits: float
    encoded_share: float
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Spliced:
    """A language model into whose layer reconstructions of a pool's first documents are spliced."""

    model: LanguageModel
    pool: Pool
    sequences: int

    def recovered(self, autoencoder: SparseAutoencoder, inference: str) -> float:
        """Share of the cross-entropy lost by zeroing every token that the reconstruction wins back."""
        rows = int(sequence_edges(self.pool, self.sequences)[-1])
        hidden = np.array(self.pool.activations[:rows])
        encoded = autoencoder.encoded(hidden, self.pool.norms[:rows]).numpy()
        rebuilt = hidden.copy()
        of = autoencoder if inference == "encoder" else budgeted(autoencoder, hidden, np.flatnonzero(encoded))
        rebuilt[encoded], _ = reconstruct(of, hidden[encoded], inferences(inference))
        states = (np.zeros_like(hidden), rebuilt, hidden)
        zero, spliced, clean = (self._entropy(torch.from_numpy(part)) for part in states)
        return recovered(zero, spliced, clean)

    def _entropy(self, states: Tensor) -> float:
        layer = int(self.pool.record["layer"])
        _, sums, counts = spliced_sums(self.model, self.pool, states, layer, self.sequences)
        return float(sums.sum() / counts.sum())


def compare(
    name: str,
    autoencoder: SparseAutoencoder,
    activations: np.ndarray,
    origin: str | Path,
    wanted: Sequence[str] = ("encoder", "omp"),
    token_id: np.ndarray | None = None,
    spliced: Spliced | None = None,
) -> Measured:
    """Measure one autoencoder on activations [N, m].

    Args:
        name: what it is called.
        autoencoder: of any library that can be imported.
        activations: in the model's units.
        origin: where they are from, for messages.
        wanted: inferences; pursuits run on its decoder.
        token_id: int [N], vocabulary ids, for `token_entropy`.
        spliced: for `ce_recovered`.

    Raises:
        UserError: an unknown inference, or no token within the norm limit.
    """
    rows = encoded_rows(autoencoder, activations, origin)
    pursued = budgeted(autoencoder, activations, rows)
    metrics: dict[str, dict[str, float]] = {}
    for inference in wanted:
        parts: list[SparseCode] = []

        def kept(
            of: SparseAutoencoder,
            batch: Tensor,
            run: Inference = inferences(inference),  # noqa: B008, of this turn of the loop
            parts: list[SparseCode] = parts,
        ) -> SparseCode:
            code = run(of, batch)
            parts.append(SparseCode(code.index.cpu(), code.value.cpu()))
            return code

        of = autoencoder if inference == "encoder" else pursued
        sums, cosine = measure(of, activations, kept, rows)
        metrics[inference] = sums.summary() | {"cosine": cosine}
        if inference == "encoder":
            sets = FiringSets.of(parts, autoencoder.n)
            metrics[inference] |= _features(sets, None if token_id is None else token_id[rows])
        if spliced is not None:
            metrics[inference]["ce_recovered"] = spliced.recovered(autoencoder, inference)
    total = storage(autoencoder)["storage_total_bytes"]
    bits, share = code_bits(autoencoder.n, pursued.k), len(rows) / len(activations)
    return Measured(name, total, autoencoder.n, pursued.k, bits, share, metrics)


def _features(sets: FiringSets, token_id: np.ndarray | None) -> dict[str, float]:
    """What single features fire on."""
    found = {"frequent_fraction": float((sets.counts > FREQUENT * sets.tokens).mean())}
    if token_id is not None:
        entropy = token_entropy(sets, token_id)
        live = ~np.isnan(entropy)
        found["token_entropy"] = float(entropy[live].mean()) if live.any() else float("nan")
    return found
