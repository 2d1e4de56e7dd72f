"""The TopK sparse autoencoder on a dictionary, and its weights file.

    z = Eᵀ(h − b_dec) + b_enc,   x = the k largest signed entries of z,   ĥ = W x + b_dec

with unit-norm columns W = colnorm(V) and E = W where the encoder is tied (arXiv 2607.01799, §3).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae import kernels
from expander_sae.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.errors import UserError
from expander_sae.kernels.autograd import unit_columns
from expander_sae.kernels.tied import tied_reconstruction
from expander_sae.masks import Mask, describe, regenerate
from expander_sae.tensors import load_tensors, save_tensors

ENCODERS = ("tied", "warm_tied", "independent")
FORMAT = "expander-sae/1"


class SparseAutoencoder(nn.Module):
    """A TopK autoencoder with parameters O(d·n).

    Parameters: values V [n, w] (dense: [n, m]), encoder E of the same shape unless tied, b_enc [n],
    b_dec [m].

    Args:
        m, n, k: residual width, features, active features per token.
        mask: support of the columns; None is a dense dictionary.
        encoder: ``tied``; ``warm_tied``, free but started at W; ``independent``, free and random.
        backend: kernels of a sparse dictionary, see `expander_sae.kernels.select`.

    Attribute `about`: JSON values that travel with the weights, such as `norm_limit`, the norm above
    which tokens are passed through and not encoded.

    Raises:
        UserError: k > n, an unknown encoder, or a mask of another shape.
    """

    rows: Tensor | None
    valid: Tensor | None
    encoder: nn.Parameter | None

    def __init__(
        self,
        m: int,
        n: int,
        k: int,
        mask: Mask | None = None,
        encoder: str = "tied",
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not 1 <= k <= n:
            raise UserError(f"k: found {k}, expected 1 to n = {n}")
        if encoder not in ENCODERS:
            raise UserError(f"encoder: found {encoder!r}, expected one of {', '.join(ENCODERS)}")
        if mask is not None and (mask.recipe.m, mask.recipe.n) != (m, n):
            raise UserError(f"mask: found {mask.recipe.m}×{mask.recipe.n}, expected m×n = {m}×{n}")
        self.m, self.n, self.k = m, n, k
        self.mask, self.encoder_kind, self.backend = mask, encoder, backend
        self.about: dict[str, Any] = {}
        width = m if mask is None else mask.width
        self.values = nn.Parameter(torch.zeros(n, width, dtype=dtype))
        self.encoder = None if encoder == "tied" else nn.Parameter(torch.zeros(n, width, dtype=dtype))
        self.b_enc = nn.Parameter(torch.zeros(n, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(m, dtype=dtype))
        rows = None if mask is None else torch.from_numpy(mask.rows)
        valid = None if mask is None or mask.regular else torch.from_numpy(mask.valid())
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("valid", valid, persistent=False)

    @property
    def d(self) -> int:
        """Nonzeros a column: the recipe's d; m for a dense dictionary."""
        return self.m if self.mask is None else self.mask.recipe.d

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """V ~ N(0, 1)/√d on the support; biases 0; a free encoder at W or drawn alike."""

        def draw() -> Tensor:
            # Drawn in float32 on the CPU, so that every dtype and device starts from one point.
            return torch.randn(self.values.shape, generator=generator) / self.d**0.5

        self.values.copy_(draw())
        self.b_enc.zero_()
        self.b_dec.zero_()
        if self.encoder is not None:
            start = (
                draw() if self.encoder_kind == "independent" else unit_columns(self._on_support(self.values))
            )
            self.encoder.copy_(start)

    def _on_support(self, values: Tensor) -> Tensor:
        return values if self.valid is None else values * self.valid

    def _columns(self) -> Tensor:
        return unit_columns(self._on_support(self.values))

    def _as_dictionary(self, columns: Tensor) -> Dictionary:
        if self.rows is None:
            return DenseDictionary(columns)
        return SparseDictionary(columns, self.rows, self.m, self._kernels())

    def _kernels(self) -> ModuleType:
        return kernels.select(self.backend, self.b_dec.device, self.m, self.values.shape[1])

    def dictionary(self) -> Dictionary:
        """The decoder W, unit-norm columns; differentiable in V."""
        return self._as_dictionary(self._columns())

    def _encoder_on(self, decoder: Dictionary) -> Dictionary:
        return decoder if self.encoder is None else self._as_dictionary(self._on_support(self.encoder))

    @torch.no_grad()
    def encode(self, activations: Tensor) -> SparseCode:
        """Code of activations [B, m]."""
        encoder = self._encoder_on(self.dictionary())
        return encoder.correlate_topk(activations - self.b_dec, self.b_enc, self.k)

    @torch.no_grad()
    def decode(self, code: SparseCode) -> Tensor:
        """ĥ [B, m] of a code."""
        return self.dictionary().synthesize(code) + self.b_dec

    def forward(self, activations: Tensor) -> tuple[Tensor, SparseCode]:
        """(ĥ [B, m], code); ĥ is differentiable in every parameter.

        The selection needs no gradient, and its k kept pre-activations are what the gradient
        starts from: it costs O(B·k·w), not O(B·n·w).
        """
        if self.encoder is None:
            backend = None if self.rows is None else self._kernels()
            rebuilt, index, value = tied_reconstruction(
                self._columns(), self.b_enc, self.b_dec, activations, self.k, self.rows, backend
            )
            return rebuilt, SparseCode(index, value)
        decoder = self.dictionary()
        encoder = self._encoder_on(decoder)
        centred = activations - self.b_dec
        selected = encoder.correlate_topk(centred, self.b_enc, self.k)
        kept = encoder.correlate_at(centred, selected.index, self.b_enc, known=selected.value)
        code = SparseCode(selected.index, kept)
        return decoder.synthesize(code) + self.b_dec, code

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Make an autoencoder of s·h into one of h, with s = `factor`: both biases are divided by s.

        Exact, since unit-norm W and E are untouched and top-k does not depend on a positive scale.
        """
        self.b_enc.div_(factor)
        self.b_dec.div_(factor)

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write a safetensors file: true values only, biases, and the mask as a recipe.

        metadata: JSON values kept under the key ``about``, beside those of `self.about`.
        """
        tensors = {"b_enc": self.b_enc.detach(), "b_dec": self.b_dec.detach()}
        for name, parameter in (("values", self.values), ("encoder", self.encoder)):
            if parameter is not None:
                kept = parameter.detach()
                tensors[name] = kept if self.valid is None else kept[self.valid]
        header = {
            "format": FORMAT,
            "shape": {"m": self.m, "n": self.n, "k": self.k},
            "encoder": self.encoder_kind,
            "mask": None if self.mask is None else describe(self.mask),
            "about": self.about | metadata,
        }
        save_tensors(tensors, path, header)

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", backend: str = "auto"
    ) -> tuple[SparseAutoencoder, dict[str, Any]]:
        """(autoencoder, the metadata given to `save`). The mask is regenerated and verified.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        tensors, header = load_tensors(path)
        if header.get("format") != FORMAT:
            raise UserError(f"{path}: format {header.get('format')!r}, expected {FORMAT!r}")
        try:
            shape, record = header["shape"], header["mask"]
            mask = record and regenerate(record["recipe"], record["sha256"], path)
            loaded = cls(
                **shape, mask=mask, encoder=header["encoder"], backend=backend, dtype=tensors["b_enc"].dtype
            )
            with torch.no_grad():
                for name, parameter in loaded.named_parameters():
                    if name in ("values", "encoder") and loaded.valid is not None:
                        parameter[loaded.valid] = tensors[name]
                    elif parameter.shape != tensors[name].shape:
                        raise ValueError(f"{name} has shape {list(tensors[name].shape)}")
                    else:
                        parameter.copy_(tensors[name])
            about = loaded.about = header["about"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: damaged weights ({error})") from None
        return loaded.to(device), about
