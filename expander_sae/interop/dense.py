"""An autoencoder as the dense matrices that other libraries store, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import Mask, describe, regenerate
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.encoders import warn_if_spoilt


@dataclass(frozen=True)
class Weights:
    """Float32 matrices on the CPU: encoder and decoder [n, m] (row j is feature j), b_enc [n], b_dec [m].

    gains [n] are what pre-activations are multiplied by once they are selected; None is 1. thresholds [n] are
    what these have to exceed; None: none, and k are kept. Where k is n, the thresholds alone decide.
    """

    encoder: Tensor
    decoder: Tensor
    b_enc: Tensor
    b_dec: Tensor
    k: int
    gains: Tensor | None = None
    thresholds: Tensor | None = None

    @property
    def counts_vary(self) -> bool:
        """As of `SparseAutoencoder`."""
        return self.thresholds is not None and self.k == len(self.b_enc)

    @property
    def gained(self) -> Tensor:
        """The decoder with its gains multiplied in, as libraries store it whose columns have norms."""
        return self.decoder if self.gains is None else self.decoder * self.gains[:, None]


def checked(weights: Weights, origin: str | Path) -> Weights:
    """The same weights, if their shapes belong together and k is possible."""
    decoder = tuple(weights.decoder.shape)
    n, m = decoder if len(decoder) == 2 else (0, 0)
    expected = {"decoder": (n, m), "encoder": (n, m), "b_enc": (n,), "b_dec": (m,)}
    expected |= {name: (n,) for name in ("gains", "thresholds") if getattr(weights, name) is not None}
    for name, shape in expected.items():
        found = tuple(getattr(weights, name).shape)
        if found != shape or not n * m:
            raise UserError(f"{origin}: {name} of shape {list(found)} beside a decoder of {list(decoder)}")
    if not 1 <= weights.k <= n:
        raise UserError(f"{origin}: k {weights.k}, expected 1 to n = {n}")
    return weights


@torch.no_grad()
def to_dense(autoencoder: SparseAutoencoder) -> Weights:
    """Write an autoencoder out; the decoder's rows have norm 1 (or 0). O(m·n) memory.

    Warns where its tied encoder is spoilt, since other libraries know no other code.
    """
    if autoencoder.free is None:
        warn_if_spoilt(autoencoder.about)
    everything = torch.arange(autoencoder.n, device=autoencoder.b_dec.device)
    dictionary = autoencoder.dictionary()
    decoder = dictionary.columns(everything)
    encoder = autoencoder._encoder_on(dictionary).columns(everything)
    tensors = (encoder, decoder, autoencoder.b_enc, autoencoder.b_dec)
    encoder, decoder, b_enc, b_dec = (tensor.detach().float().cpu().contiguous() for tensor in tensors)
    kept = (autoencoder.gains, autoencoder.thresholds)
    optional = (None if tensor is None else tensor.float().cpu() for tensor in kept)
    return Weights(encoder, decoder, b_enc, b_dec, autoencoder.k, *optional)


@torch.no_grad()
def from_dense(
    weights: Weights,
    origin: str | Path,
    record: dict[str, Any] | None,
    about: dict[str, Any],
    backend: str = "auto",
    *,
    selects_by_contribution: bool = False,
) -> SparseAutoencoder:
    """An autoencoder of these matrices, sparse where `record` says on which mask they live.

    The record is what `mask_record` gave when they were exported, None of another library's own: then `about`
    is remembered. Columns may have any norms. One that was tied and no longer is has a free encoder. A ReLU
    of the library's is left out where the record says that ours had none.

    Raises:
        UserError: as of `unit_decoder`, or the mask does not fit the matrices.
    """
    weights = unit_decoder(weights, selects_by_contribution, origin)
    n, m = weights.decoder.shape
    mask = None
    kind = "tied" if torch.equal(weights.encoder, weights.decoder) else "independent"
    if record is not None:
        try:
            kind, about = record["encoder"], dict(record.get("about", {}))
            if not weights.counts_vary and not record.get("relu"):
                weights = replace(weights, thresholds=None)
            if record["mask"] is not None:
                size = (m, n, weights.decoder.numel())
                mask = regenerate(record["mask"]["recipe"], record["mask"]["sha256"], origin, size)
            if kind == "tied" and not torch.allclose(weights.encoder, weights.decoder, rtol=0, atol=1e-6):
                kind = "independent"
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{origin}: the record of the mask is damaged ({error!r})") from None
    loaded = SparseAutoencoder(m, n, weights.k, mask, kind, backend)
    values = weights.decoder if mask is None else on_support(weights.decoder, mask, origin)
    encoder, support = weights.encoder, loaded.encoder_mask
    if loaded.encoder is not None and support is not None:
        encoder = on_support(encoder, support, origin)
    return _filled(loaded, replace(weights, decoder=values, encoder=encoder), about)


def _filled(empty: SparseAutoencoder, weights: Weights, about: dict[str, Any]) -> SparseAutoencoder:
    """With these parameters: decoder and encoder as its own are, on its masks."""
    empty.values.copy_(weights.decoder)
    if empty.encoder is not None:
        empty.encoder.copy_(weights.encoder)
    empty.b_enc.copy_(weights.b_enc)
    empty.b_dec.copy_(weights.b_dec)
    empty.gains, empty.thresholds = weights.gains, weights.thresholds
    empty.about = about
    return empty


def check_selection(autoencoder: SparseAutoencoder, target: str, varying: bool = False) -> None:
    """Raise `UserError` where a format whose top-k is followed by a ReLU cannot say what is kept.

    A `varying` one also has encoders whose thresholds alone decide.
    """
    kept = autoencoder.thresholds
    if kept is None or (varying and autoencoder.counts_vary):
        return
    if autoencoder.counts_vary:
        raise UserError(f"{target}: found an encoder of thresholds, expected one of top-k")
    if bool((kept != 0).any()):
        raise UserError(f"{target}: found thresholds beside top-k, expected one of them")


def on_support(matrix: Tensor, mask: Mask, origin: str | Path) -> Tensor:
    """Entries of matrix [n, m] on the mask: [n, w]; 0 in padding.

    Raises:
        UserError: an entry outside the mask is not 0.
    """
    values = matrix.gather(1, torch.from_numpy(mask.rows).long()) * torch.from_numpy(mask.valid())
    outside = int(torch.count_nonzero(matrix)) - int(torch.count_nonzero(values))
    if outside:
        raise UserError(f"{origin}: {outside} entries outside the recorded mask are not 0, expected none")
    return values


def mask_record(autoencoder: SparseAutoencoder) -> dict[str, Any]:
    """JSON that brings an exported autoencoder back onto its mask, unless that is a learned one."""
    known = autoencoder.mask is not None and not autoencoder.mask.learned
    mask = describe(autoencoder.mask) if known and autoencoder.mask is not None else None
    relu = {"relu": True} if autoencoder.thresholds is not None and not autoencoder.counts_vary else {}
    return {"mask": mask, "encoder": autoencoder.encoder_kind, "about": autoencoder.about} | relu


@torch.no_grad()
def pruned(autoencoder: SparseAutoencoder, d: int) -> SparseAutoencoder:
    """Keep the d largest entries of each decoder column, at unit norm, and the encoder there; not retrained.

    The support `pruned_retuned` also retrains.

    Args:
        autoencoder: an imported dense one, for example.
        d: entries of a column to keep.

    Raises:
        UserError: d is not between 1 and m.
    """
    weights = to_dense(autoencoder)
    mask, values = prune(weights.decoder, d, seed=0)
    kind = "tied" if torch.equal(weights.encoder, weights.decoder) else "independent"
    smaller = SparseAutoencoder(autoencoder.m, autoencoder.n, autoencoder.k, mask, kind, autoencoder.backend)
    encoder = weights.encoder.gather(1, torch.from_numpy(mask.rows).long())
    return _filled(smaller, replace(weights, decoder=values, encoder=encoder), dict(autoencoder.about))


def unit_decoder(weights: Weights, selects_by_contribution: bool, origin: str | Path) -> Weights:
    """The same autoencoder with unit-norm columns.

    Where the selection ran on x_j·‖w_j‖ (`selects_by_contribution`), the norms go into the encoder; where
    thresholds alone decide on x_j, into these too. A top-k that did not see them stays what it was, to the
    last bit: they become gains.

    Raises:
        UserError: shapes that do not belong together, or a column of zeros where x_j is divided by its norm.
    """
    checked(weights, origin)
    norms = weights.decoder.double().norm(dim=1)
    zeros = int((norms == 0).sum())
    if zeros and selects_by_contribution:
        raise UserError(f"{origin}: {zeros} decoder columns of zeros, expected none where their norms divide")
    # Unit norm up to float32 rounding is left alone, so that a tied encoder stays equal to the decoder.
    plain = (norms == 0) | ((norms - 1).abs() <= 1e-6)
    scale = torch.where(plain, torch.ones_like(norms), norms).float()
    unit = replace(weights, decoder=weights.decoder / scale[:, None])
    if selects_by_contribution or weights.counts_vary:
        unit = replace(unit, encoder=weights.encoder * scale[:, None], b_enc=weights.b_enc * scale)
        if selects_by_contribution or weights.thresholds is None:
            return unit
        return replace(unit, thresholds=weights.thresholds * scale)
    gains = scale if weights.gains is None else scale * weights.gains
    return replace(unit, gains=None if bool((gains == 1).all()) else gains)
