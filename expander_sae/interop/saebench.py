"""An autoencoder as SAEBench's core evaluation takes it, without importing SAEBench."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.interop.dense import to_dense
from expander_sae.model.autoencoder import SparseAutoencoder


@dataclass
class SAEBenchConfig:
    """What SAEBench reads of an autoencoder's config; SAEBench itself adds `metadata`, of the same values."""

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    activation_fn_kwargs: dict[str, Any] = field(default_factory=dict)
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    hook_head_index: int | None = None
    context_size: int | None = None
    architecture: str = "topk"
    activation_fn_str: str = "topk"
    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    reshape_activations: str = "none"
    finetuning_scaling_factor: bool = False
    prepend_bos: bool = True
    dataset_path: str = ""
    dataset_trust_remote_code: bool = True
    seqpos_slice: tuple[int | None, ...] = (None,)
    training_tokens: int = -100_000
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None
    dtype: str = "float32"
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """The fields, for the JSON of SAEBench's results."""
        return asdict(self)


class SAEBenchAutoencoder(nn.Module):
    """The attributes and methods of SAEBench's BaseSAE: dense weights, `encode`, `decode`, `forward`, `cfg`.

    Negative kept values are kept, as in the autoencoder itself. Every token is encoded: SAEBench knows no
    norm limit.

    Args:
        autoencoder: what to evaluate.
        model_name, layer: of TransformerLens; the hook is ``blocks.{layer}.hook_resid_post``.
        device, dtype: of the dense weights.
    """

    gains: Tensor | None
    thresholds: Tensor | None

    def __init__(
        self,
        autoencoder: SparseAutoencoder,
        model_name: str,
        layer: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        dense = to_dense(autoencoder)
        self.W_enc = nn.Parameter(dense.encoder.T.contiguous())
        self.W_dec = nn.Parameter(dense.decoder)
        self.b_enc = nn.Parameter(dense.b_enc)
        self.b_dec = nn.Parameter(dense.b_dec)
        self.register_buffer("gains", dense.gains)
        self.register_buffer("thresholds", dense.thresholds)
        self.k = autoencoder.k
        self.device: torch.device = torch.device(device)
        self.dtype: torch.dtype = dtype
        self.cfg = SAEBenchConfig(
            model_name=model_name,
            d_in=autoencoder.m,
            d_sae=autoencoder.n,
            hook_layer=layer,
            hook_name=f"blocks.{layer}.hook_resid_post",
            activation_fn_kwargs={"k": autoencoder.k},
        )
        self.to(device=self.device, dtype=dtype)

    def encode(self, x: Tensor) -> Tensor:
        """[…, d_in] → […, d_sae] with at most k nonzeros a token."""
        pre = (x.to(self.W_enc.dtype) - self.b_dec) @ self.W_enc + self.b_enc
        margin, index = (pre if self.thresholds is None else pre - self.thresholds).topk(self.k, dim=-1)
        value = margin if self.thresholds is None else pre.gather(-1, index) * (margin > 0)
        value = value if self.gains is None else value * self.gains[index]
        return torch.zeros_like(pre).scatter_(-1, index, value)

    def decode(self, feature_acts: Tensor) -> Tensor:
        """[…, d_sae] → […, d_in]."""
        return feature_acts @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def to(self, *args: Any, **kwargs: Any) -> SAEBenchAutoencoder:
        """As of any module; `device` and `dtype` follow."""
        super().to(*args, **kwargs)
        self.device, self.dtype = self.W_enc.device, self.W_enc.dtype
        self.cfg.device, self.cfg.dtype = str(self.device), str(self.dtype).removeprefix("torch.")
        return self

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Columns have unit norm already."""

    @torch.no_grad()
    def check_decoder_norms(self) -> bool:
        """Whether every column that is not 0 has norm 1."""
        norms = self.W_dec.norm(dim=1)
        return bool(torch.allclose(norms[norms > 0], torch.ones_like(norms[norms > 0]), atol=1e-3))
