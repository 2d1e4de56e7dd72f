"""Inference: anything that maps activations to a sparse code. Evaluation does not know which one it runs.

All pursuits select by signed correlation, as the encoder's top-k does, decode h − b_dec on the same
frozen decoder and keep at most k features.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.pursuit.block_omp import block_omp
from expander_sae.pursuit.cosamp import cosamp
from expander_sae.pursuit.niht import niht
from expander_sae.pursuit.omp import omp
from expander_sae.storage.arrays import HALF

Inference = Callable[[SparseAutoencoder, Tensor], SparseCode]
Pursuit = Callable[..., SparseCode]
"""(dictionary, target [B, m], k, selection=...) -> code."""


def _encoder(autoencoder: SparseAutoencoder, activations: Tensor) -> SparseCode:
    return autoencoder.encode(activations)


def _pursued(pursuit: Pursuit, autoencoder: SparseAutoencoder, activations: Tensor) -> SparseCode:
    dtype = autoencoder.b_dec.dtype
    if dtype in HALF:
        # Least squares and the rules to stop need more digits than 16 bits have.
        centred = activations.float() - autoencoder.b_dec.detach().float()
        code = pursuit(_in_float32(autoencoder), centred, autoencoder.k, selection="signed")
        return SparseCode(code.index, code.value.to(dtype))
    centred = activations - autoencoder.b_dec.detach()
    return pursuit(autoencoder.dictionary(), centred, autoencoder.k, selection="signed")


def _in_float32(autoencoder: SparseAutoencoder) -> Dictionary:
    """The decoder of an autoencoder of 16 bits, its columns as they are."""
    decoder = autoencoder.dictionary()
    if isinstance(decoder, SparseDictionary):
        return SparseDictionary(decoder.values.detach().float(), decoder.rows, decoder.m, autoencoder.backend)
    assert isinstance(decoder, DenseDictionary)
    return DenseDictionary(decoder.weight.detach().float())


def _block_omp(block: int, autoencoder: SparseAutoencoder, activations: Tensor) -> SparseCode:
    """`block` columns a round; no round can take more than the k that there is room for."""
    # One column a round is OMP, for which a backend may have a faster pursuit of its own.
    pursuit = omp if block == 1 else partial(block_omp, block=min(block, autoencoder.k))
    return _pursued(pursuit, autoencoder, activations)


INFERENCES: dict[str, Inference] = {
    "encoder": _encoder,
    "omp": partial(_pursued, omp),
    "niht": partial(_pursued, niht),
    "cosamp": partial(_pursued, cosamp),
}
"""Those without a parameter; `inferences` also knows `block_omp_{L}`."""


def inferences(name: str) -> Inference:
    """The inference of this name: ``encoder``, ``omp``, ``niht``, ``cosamp`` or ``block_omp_{L}``, L ≥ 1.

    Raises:
        UserError: there is no such inference.
    """
    if match := re.fullmatch(r"block_omp_([1-9]\d*)", name):
        return partial(_block_omp, int(match[1]))
    if name not in INFERENCES:
        known = ", ".join([*INFERENCES, "block_omp_L with L from 1"])
        raise UserError(f"inference: found {name!r}, expected one of {known}")
    return INFERENCES[name]
