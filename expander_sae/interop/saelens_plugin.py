"""SAELens architectures that stay compact. Importing this module registers them; it needs sae-lens.

    import expander_sae.interop.saelens_plugin
    sae = sae_lens.SAE.load_from_disk(folder)      # written by `saelens.export(…, compact=True)`

The mask travels as a recipe in the config: the loader casts every tensor to the config's dtype, which would
round row indices, and copies no other file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from sae_lens import SAEConfig, register_sae_class
from torch import Tensor, nn

from expander_sae.interop.saelens_columns import OnMask, check_foldable
from expander_sae.interop.saelens_format import COMPACT, COMPACT_JUMPRELU
from expander_sae.masks.recipe import Mask, regenerate


@dataclass
class ExpanderJumpReLUConfig(SAEConfig):
    """The mask's recipe and checksum; encoder ``tied``, ``warm_tied`` or ``independent``.

    Args:
        norm_limit: tokens above it were left out of training. `forward` passes them through; `encode` does
            not know them from others.
    """

    mask: dict[str, Any] = field(default_factory=dict)
    encoder: str = "tied"
    norm_limit: float | None = None

    @classmethod
    def architecture(cls) -> str:
        return COMPACT_JUMPRELU

    def __post_init__(self) -> None:
        super().__post_init__()
        check_foldable(self)


@dataclass
class ExpanderSAEConfig(ExpanderJumpReLUConfig):
    """k active features, and what the other architecture has."""

    k: int = 100

    @classmethod
    def architecture(cls) -> str:
        return COMPACT


class _Read(OnMask):
    """Inference of either architecture."""

    def mask(self) -> Mask:
        cfg = self.cfg
        size = (cfg.d_in, cfg.d_sae, cfg.d_in * cfg.d_sae)
        return regenerate(cfg.mask["recipe"], cfg.mask["sha256"], "cfg.json", size)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction; tokens above `norm_limit` are passed through."""
        rebuilt: Tensor = super().forward(x)
        if self.cfg.norm_limit is None:
            return rebuilt
        # In float64, as the limit was made, but on Apple's GPUs, which have none.
        dtype = torch.float32 if x.is_mps else torch.float64
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        return torch.where(norms <= self.cfg.norm_limit, rebuilt, x.to(rebuilt.dtype))

    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        super().fold_activation_norm_scaling_factor(scaling_factor)
        if self.cfg.norm_limit is not None:
            self.cfg.norm_limit /= float(scaling_factor)


class ExpanderSAE(_Read):
    """x = topk(Eᵀ(h − b_dec) + b_enc), negative values kept."""

    def encode(self, x: Tensor) -> Tensor:
        """[…, d_in] → […, d_sae] with k nonzeros a token."""
        scores = self.scores(x)
        value, index = scores.topk(self.cfg.k, dim=-1)
        return self.hook_sae_acts_post(torch.zeros_like(scores).scatter_(-1, index, value))


class ExpanderJumpReLUSAE(_Read):
    """x_j = z_j where z_j > max(θ_j, 0), with z = Eᵀ(h − b_dec) + b_enc; what BatchTopK becomes."""

    threshold: nn.Parameter

    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.threshold = self.zeros(self.cfg.d_sae)

    def encode(self, x: Tensor) -> Tensor:
        """[…, d_in] → […, d_sae]."""
        scores = self.scores(x)
        return self.hook_sae_acts_post(scores * (scores > self.threshold.clamp(min=0)))

    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        super().fold_activation_norm_scaling_factor(scaling_factor)
        self.threshold.data /= scaling_factor


register_sae_class(COMPACT, ExpanderSAE, ExpanderSAEConfig)
register_sae_class(COMPACT_JUMPRELU, ExpanderJumpReLUSAE, ExpanderJumpReLUConfig)
