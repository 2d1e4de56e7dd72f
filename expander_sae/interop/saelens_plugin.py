"""A SAELens architecture that stays compact. Importing this module registers it; it needs sae-lens.

    import expander_sae.interop.saelens_plugin
    sae = sae_lens.SAE.load_from_disk(folder)      # written by `saelens.export(…, compact=True)`

The parameters are values [n, w] and biases. `W_enc` and `W_dec` are written out from them when they are
asked for. The mask travels as a recipe in the config: the loader casts every tensor to the config's
dtype, which would round row indices, and copies no other file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from sae_lens import SAE, SAEConfig, register_sae_class
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.interop.saelens import COMPACT
from expander_sae.kernels import backends
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.recipe import regenerate
from expander_sae.model.dictionary import SparseDictionary

_UNFOLDABLE = ("constant_norm_rescale", "layer_norm", "covariance_whitening")


@dataclass
class ExpanderSAEConfig(SAEConfig):
    """k active features; the mask's recipe and checksum; ``tied``, ``warm_tied`` or ``independent``.

    Args:
        norm_limit: tokens above it were left out of training. `forward` passes them through; `encode` does
            not know them from others.
    """

    k: int = 100
    mask: dict[str, Any] = field(default_factory=dict)
    encoder: str = "tied"
    norm_limit: float | None = None

    @classmethod
    def architecture(cls) -> str:
        return COMPACT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize_activations in _UNFOLDABLE:
            raise UserError(
                f"normalize_activations: found {self.normalize_activations!r}, expected 'none'; it cannot be "
                "folded into values on a mask"
            )


class ExpanderSAE(SAE[ExpanderSAEConfig]):
    """x = topk(Eᵀ(h − b_dec) + b_enc), negative values kept; ĥ = Wx + b_dec with unit-norm W on the mask."""

    b_enc: nn.Parameter

    def initialize_weights(self) -> None:
        """Zero parameters of the right shapes; the mask is rebuilt on the CPU, whatever the device."""
        cfg = self.cfg
        size = (cfg.d_in, cfg.d_sae, cfg.d_in * cfg.d_sae)
        mask = regenerate(cfg.mask["recipe"], cfg.mask["sha256"], "cfg.json", size)
        self._rows = torch.from_numpy(mask.rows)
        self._valid = None if mask.regular else torch.from_numpy(mask.valid())

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape, dtype=self.dtype, device=self.device))

        self.values = zeros(*mask.rows.shape)
        self.encoder_values = None if cfg.encoder == "tied" else zeros(*mask.rows.shape)
        self.b_enc, self.b_dec = zeros(cfg.d_sae), zeros(cfg.d_in)

    def _on_device(self, name: str) -> Tensor | None:
        """The mask beside the values. It is no buffer: SAELens would cast it, or leave it on `meta`."""
        kept: Tensor | None = getattr(self, name)
        if kept is not None and kept.device != self.values.device and not self.values.is_meta:
            kept = kept.to(self.values.device)
            setattr(self, name, kept)
        return kept

    def _dictionary(self, values: Tensor) -> SparseDictionary:
        rows, valid = self._on_device("_rows"), self._on_device("_valid")
        assert rows is not None
        values = values if valid is None else values * valid
        backend = backends.select("auto", values.device, self.cfg.d_in, values.shape[1])
        return SparseDictionary(values, rows, self.cfg.d_in, backend)

    def decoder(self) -> SparseDictionary:
        """Unit-norm columns, for pursuits; float32, as the kernels want it."""
        return self._dictionary(unit_columns(self.values.float()))

    def encoder(self) -> SparseDictionary:
        own = self.encoder_values
        return self.decoder() if own is None else self._dictionary(own.float())

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

    def encode(self, x: Tensor) -> Tensor:
        """[…, d_in] → […, d_sae] with k nonzeros a token."""
        centred = self.process_sae_in(x)
        flat = centred.reshape(-1, self.cfg.d_in).float()
        hidden = self.encoder().correlate(flat) + self.b_enc
        hidden = self.hook_sae_acts_pre(hidden.to(self.dtype).reshape(*centred.shape[:-1], self.cfg.d_sae))
        value, index = hidden.topk(self.cfg.k, dim=-1)
        return self.hook_sae_acts_post(torch.zeros_like(hidden).scatter_(-1, index, value))

    def decode(self, feature_acts: Tensor) -> Tensor:
        """[…, d_sae] → […, d_in]."""
        rebuilt = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(rebuilt), self.d_head)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction; tokens above `norm_limit` are passed through."""
        rebuilt = super().forward(x)
        if self.cfg.norm_limit is None:
            return rebuilt
        # In float64, as the limit was made, but on Apple's GPUs, which have none.
        dtype = torch.float32 if x.is_mps else torch.float64
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        encoded = norms <= self.cfg.norm_limit
        return torch.where(encoded, rebuilt, x.to(rebuilt.dtype))

    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """Make an autoencoder of s·h into one of h: biases and norm limit are divided by s, W is kept."""
        self.b_enc.data /= scaling_factor
        self.b_dec.data /= scaling_factor
        if self.cfg.norm_limit is not None:
            self.cfg.norm_limit /= float(scaling_factor)
        self.cfg.normalize_activations = "none"

    def fold_activation_whitening(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("a whitening would fill the columns: it cannot be folded into a mask")

    def fold_and_get_W_dec_norm(self) -> Tensor:
        """Columns have unit norm already, so there is nothing to fold."""
        return self.get_W_dec_norm()


register_sae_class(COMPACT, ExpanderSAE, ExpanderSAEConfig)
