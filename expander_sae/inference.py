"""Inference: anything that maps activations to a sparse code. Evaluation does not know which one it runs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionary import SparseCode
from expander_sae.pursuit.omp import omp

Inference = Callable[[SparseAutoencoder, Tensor], SparseCode]


def _encoder(autoencoder: SparseAutoencoder, activations: Tensor) -> SparseCode:
    return autoencoder.encode(activations)


def _omp(autoencoder: SparseAutoencoder, activations: Tensor) -> SparseCode:
    """OMP with signed selection, as the encoder's top-k is signed, on h − b_dec."""
    centred = activations - autoencoder.b_dec.detach()
    return omp(autoencoder.dictionary(), centred, autoencoder.k, selection="signed")


INFERENCES: dict[str, Inference] = {"encoder": _encoder, "omp": _omp}
