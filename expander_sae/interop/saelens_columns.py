"""What SAELens's architectures of ours share: columns on a mask, and all that SAELens reads of them.

The parameters are values [n, w] and biases. `W_enc` and `W_dec` are written out from them when they are
asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from sae_lens import SAE, SAEConfig
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.kernels import backends
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.recipe import Mask
from expander_sae.model.dictionary import SparseCode, SparseDictionary
from expander_sae.model.sparse import single_columns

_UNFOLDABLE = ("constant_norm_rescale", "layer_norm", "covariance_whitening")
_DENSE_SHARE = 8
"""Codes of which more than 1/8 of the features are active are decoded with written-out columns."""


def check_foldable(cfg: SAEConfig) -> None:
    """Raise `UserError` for a normalisation of activations that values on a mask cannot take up."""
    if cfg.normalize_activations in _UNFOLDABLE:
        raise UserError(
            f"normalize_activations: found {cfg.normalize_activations!r}, expected 'none' or "
            "'expected_average_only_in'; it cannot be folded into values on a mask"
        )


def sparse_code(acts: Tensor) -> SparseCode:
    """The nonzero entries of acts [B, n], as wide as the row with the most; the rest of a row is zeros."""
    most = int(torch.count_nonzero(acts, dim=1).max()) if len(acts) else 0
    index = acts.abs().topk(max(1, most), dim=1).indices
    return SparseCode(index, acts.gather(1, index))


class OnMask(SAE[Any]):
    """ĥ = Wx + b_dec with unit-norm columns W on a mask, and an encoder on the same mask, tied or its own."""

    b_enc: nn.Parameter
    values: nn.Parameter
    encoder_values: nn.Parameter | None

    @abstractmethod
    def mask(self) -> Mask:
        """Where the columns may be nonzero."""

    def initialize_weights(self) -> None:
        """Zero parameters of the right shapes; the mask is rebuilt on the CPU, whatever the device."""
        mask = self.mask()
        self._rows = torch.from_numpy(mask.rows)
        self._valid = None if mask.regular else torch.from_numpy(mask.valid())
        self._single = single_columns(mask)
        self.values = self.zeros(*mask.rows.shape)
        self.encoder_values = None if self.cfg.encoder == "tied" else self.zeros(*mask.rows.shape)
        self.b_enc, self.b_dec = self.zeros(self.cfg.d_sae), self.zeros(self.cfg.d_in)

    def zeros(self, *shape: int) -> nn.Parameter:
        """A parameter of zeros of the dtype and on the device of the configuration."""
        return nn.Parameter(torch.zeros(*shape, dtype=self.dtype, device=self.device))

    def _on_device(self, name: str) -> Tensor | None:
        """The mask beside the values. It is no buffer: SAELens would cast it, or leave it on `meta`."""
        kept: Tensor | None = getattr(self, name)
        if kept is not None and kept.device != self.values.device and not self.values.is_meta:
            kept = kept.to(self.values.device)
            setattr(self, name, kept)
        return kept

    def on_mask(self, values: Tensor) -> Tensor:
        """The values [n, w], 0 in the padding of an irregular mask."""
        valid = self._on_device("_valid")
        return values if valid is None else values * valid

    def dictionary(self, values: Tensor, features: Tensor | None = None) -> SparseDictionary:
        """Columns of these values [n, w] on the mask, or those of some features alone, of values [S, w]."""
        rows = self._on_device("_rows")
        assert rows is not None
        rows = rows if features is None else rows[features]
        backend = backends.select("auto", values.device, self.cfg.d_in, values.shape[1])
        return SparseDictionary(values, rows, self.cfg.d_in, backend)

    def decoder(self) -> SparseDictionary:
        """Unit-norm columns, for pursuits; float32, as the kernels want it."""
        entries = self.on_mask(self.values.float())
        return self.dictionary(unit_columns(entries, self._on_device("_single")))

    def encoder(self, decoder: SparseDictionary | None = None) -> SparseDictionary:
        """The encoder's columns; those of the `decoder` where it is tied."""
        own = self.encoder_values
        if own is not None:
            return self.dictionary(self.on_mask(own.float()))
        return self.decoder() if decoder is None else decoder

    def scores(self, x: Tensor) -> Tensor:
        """Pre-activations of […, d_in]: […, d_sae], as its hook sees them."""
        centred = self.process_sae_in(x)
        flat = self.encoder().correlate(centred.reshape(-1, self.cfg.d_in).float()) + self.b_enc
        scores: Tensor = self.hook_sae_acts_pre(
            flat.to(self.dtype).reshape(*centred.shape[:-1], self.cfg.d_sae)
        )
        return scores

    def _dense(self, dictionary: SparseDictionary) -> Tensor:
        everything = torch.arange(self.cfg.d_sae, device=self.values.device)
        return dictionary.columns(everything).to(self.dtype)

    # SAELens declares both as parameters; here they are written out from the mask's values.
    @property
    def W_dec(self) -> Tensor:  # type: ignore[override]
        """[d_sae, d_in], written out: reading costs O(m·n), writing changes nothing."""
        return self._dense(self.decoder())

    @property
    def W_enc(self) -> Tensor:  # type: ignore[override]
        """[d_in, d_sae], written out."""
        return self._dense(self.encoder()).T

    def decode(self, feature_acts: Tensor) -> Tensor:
        """[…, d_sae] → […, d_in], by the active columns; by all where features need a gradient."""
        flat = feature_acts.reshape(-1, self.cfg.d_sae)
        code = None if flat.requires_grad else sparse_code(flat)
        if code is None or code.index.shape[1] * _DENSE_SHARE > self.cfg.d_sae:
            rebuilt = feature_acts @ self.W_dec
        else:
            rebuilt = self.decoder().synthesize(SparseCode(code.index, code.value.float()))
            rebuilt = rebuilt.to(self.dtype).reshape(*feature_acts.shape[:-1], self.cfg.d_in)
        rebuilt = self.hook_sae_recons(rebuilt + self.b_dec)
        out: Tensor = self.reshape_fn_out(self.run_time_activation_norm_fn_out(rebuilt), self.d_head)
        return out

    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Make an autoencoder of s·h into one of h: what is in units of h is divided by s, W is kept."""
        self.b_enc.data /= scaling_factor
        self.b_dec.data /= scaling_factor
        self.cfg.normalize_activations = "none"

    def fold_activation_whitening(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("a whitening would fill the columns: it cannot be folded into a mask")

    def fold_and_get_W_dec_norm(self) -> Tensor:
        """Columns have unit norm already, so there is nothing to fold."""
        return self.get_W_dec_norm()
