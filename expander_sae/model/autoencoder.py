"""The TopK sparse autoencoder on a dictionary, and its weights file.

    z = Eᵀ(h − b_dec) + b_enc,   x = the k largest signed entries of z,   ĥ = W x + b_dec

with unit-norm columns W = colnorm(V) and E = W where the encoder is tied (arXiv 2607.01799, §3). One of
another library may select by thresholds, see model/thresholds.py, and multiply what is kept by a gain of
each feature: x_j = g_j z_j.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.supports import described
from expander_sae.model import weights_file
from expander_sae.model.columns import Columns
from expander_sae.model.dense import dense_recipe
from expander_sae.model.dictionary import Dictionary, SparseCode, centred_topk, checked_code
from expander_sae.model.encoders import ENCODERS, warn_if_spoilt
from expander_sae.model.held_parameters import of_encoder
from expander_sae.model.in_precision import InPrecision
from expander_sae.model.passes_through import PassesThrough
from expander_sae.model.thresholds import selected
from expander_sae.storage.arrays import as_tensor


class SparseAutoencoder(InPrecision, PassesThrough):
    """A TopK autoencoder, sparse with parameters O(d·n).

    Parameters: those of the decoder's columns, such as values V [n, w] (dense: [n, m]); those of a free
    encoder, such as `encoder`, of V's shape or on a support of its own; b_enc [n]; b_dec [m].

    Args:
        m, n, k: residual width, features, active features per token.
        mask: support of the columns, or the recipe of a support; None is a dense dictionary.
        encoder: one of `ENCODERS`: ``tied``; ``warm_tied``, free but started at W; ``independent``, free and
            random; for sparse decoders also ``own_support``, free and random on an independent mask of the
            same family, and ``full``, free, random and dense.
        backend: kernels of a sparse dictionary, see `expander_sae.kernels.backends.select`.

    Attributes:
        decoder: the columns of W, see model/columns.py.
        free: those of a free encoder; None where it is tied.
        gains: [n], what kept pre-activations are multiplied by; None, as ours all are, is 1.
        thresholds: [n], what pre-activations have to exceed to be kept; at most k are, and any number where k
            is n. None, as ours all are: none have to, and k are.
        about: JSON values that travel with the weights, such as `norm_limit`, the norm above which tokens
            are passed through and not encoded.

    Raises:
        UserError: k > n, an unknown encoder, an encoder that needs a mask and has none, or a mask of
            another shape.
    """

    values: nn.Parameter
    encoder: nn.Parameter | None
    gains: Tensor | None
    thresholds: Tensor | None
    _columns: tuple[Columns, Columns | None]

    def __init__(
        self,
        m: int,
        n: int,
        k: int,
        mask: Mask | MaskRecipe | None = None,
        encoder: str = "tied",
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
        encoder_mask: Mask | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= k <= n:
            raise UserError(f"k: found {k}, expected 1 to n = {n}")
        if encoder not in ENCODERS:
            raise UserError(f"encoder: found {encoder!r}, expected one of {', '.join(ENCODERS)}")
        support = dense_recipe(m, n) if mask is None else mask
        recipe = support.recipe
        if (recipe.m, recipe.n) != (m, n):
            raise UserError(f"mask: found {recipe.m}×{recipe.n}, expected m×n = {m}×{n}")
        self.m, self.n, self.d, self.k = m, n, recipe.d, k
        self.encoder_kind, self.backend = encoder, backend
        self.about: dict[str, Any] = {}
        decoder: Columns = described(recipe.family).columns()(support, backend, dtype)
        if k > decoder.most_active:
            expected = f"1 to {decoder.most_active} for a {recipe.family} dictionary"
            raise UserError(f"k: found {k}, expected {expected}")
        decoder.encoder_mask = encoder_mask
        # In a tuple, so that torch takes neither for a submodule: its parameters would get longer names.
        self._columns = decoder, decoder.read_by(encoder)
        for name, parameter in decoder.named_parameters():
            self.register_parameter(name, parameter)
        self.register_parameter("encoder", None)
        for name, parameter in self.free.named_parameters() if self.free else ():
            self.register_parameter(of_encoder(name), parameter)
        self.b_enc = nn.Parameter(torch.zeros(n, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(m, dtype=dtype))
        self.register_buffer("gains", None)
        self.register_buffer("thresholds", None)

    @property
    def decoder(self) -> Columns:
        return self._columns[0]

    @property
    def free(self) -> Columns | None:
        return self._columns[1]

    @property
    def mask(self) -> Mask | None:
        """Where W may be nonzero; None where no mask says so."""
        return self.decoder.mask

    @property
    def encoder_mask(self) -> Mask | None:
        """Where E may be nonzero; None is everywhere."""
        return self.mask if self.free is None else self.free.mask

    def column_sizes(self) -> dict[str, int]:
        """Name of each parameter that holds columns → how many values one of them starts with."""
        sizes = dict(self.decoder.column_sizes())
        free = {} if self.free is None else self.free.column_sizes()
        return sizes | {weights_file.of_encoder(name): size for name, size in free.items()}

    def _apply(self, fn: Any, recurse: bool = True) -> SparseAutoencoder:
        for columns in filter(None, self._columns):
            columns._apply(fn)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """V ~ N(0, 1)/√d on the support; biases 0; a free encoder at W or drawn alike (full: N(0, 1)/√m)."""
        self.decoder.initialise(generator)
        self.b_enc.zero_()
        self.b_dec.zero_()
        if self.free is not None and self.encoder_kind == "warm_tied":
            self.free.start_at(self.decoder)
        elif self.free is not None:
            self.free.initialise(generator)

    def dictionary(self) -> Dictionary:
        """The decoder W, unit-norm columns; differentiable in its parameters."""
        return self.decoder.dictionary()

    def _encoder_on(self, decoder: Dictionary) -> Dictionary:
        return self.decoder.tied_encoder(decoder) if self.free is None else self.free.dictionary()

    def own(self, values: Tensor | np.ndarray) -> Tensor:
        """A tensor or an array as a tensor of the autoencoder's device and dtype."""
        return as_tensor(values).to(self.b_dec.device, self.b_dec.dtype)

    @torch.no_grad()
    def encode(self, activations: Tensor | np.ndarray) -> SparseCode:
        """Code, on the autoencoder's device, of activations [B, m] of any device and numeric dtype.

        Warns where codes by a pursuit were trained with, and the encoder is tied.

        Raises:
            UserError: another shape; [B, T, m] is to be flattened first.
        """
        h = as_tensor(activations)
        self._check_rows(h)
        if self.free is None:
            warn_if_spoilt(self.about)
        encoder = self._encoder_on(self.dictionary())
        if self.thresholds is None:
            found = centred_topk(encoder, self.own(h), self.b_dec, self.b_enc, self.k)
        else:
            found = selected(encoder, self.own(h) - self.b_dec, self.b_enc, self.thresholds, self.k)
        return found if self.gains is None else SparseCode(found.index, found.value * self.gains[found.index])

    @property
    def _plain(self) -> bool:
        """Whether decoder and encoder are the same columns, read by top-k alone, as fused steps need it."""
        return self.free is None and self.gains is None and self.thresholds is None

    @property
    def counts_vary(self) -> bool:
        """Whether thresholds alone decide how many features a token has, so that k says nothing of it."""
        return self.thresholds is not None and self.k == self.n

    @torch.no_grad()
    def decode(self, code: SparseCode) -> Tensor:
        """ĥ [B, m], on the autoencoder's device, of a code of any device and dtype.

        Raises:
            UserError: index and value of different shapes, or an index that is neither −1 nor a feature.
        """
        index, value = checked_code(code, self.n)
        code = SparseCode(index.to(self.b_dec.device, torch.int64), self.own(value))
        return self.dictionary().synthesize(code) + self.b_dec

    def forward(self, activations: Tensor) -> tuple[Tensor, SparseCode]:
        """(ĥ [B, m], code); ĥ is differentiable in every parameter.

        The selection needs no gradient, and its k kept pre-activations are what the gradient starts from: it
        costs O(B·k·w), not O(B·n·w).

        Raises:
            UserError: another shape.
        """
        self._check_rows(activations)
        if self._plain:
            fused = self.decoder.tied(self.b_enc, self.b_dec, activations, self.k)
            if fused is not None:
                return fused[0], SparseCode(*fused[1:])
        decoder = self.dictionary()
        encoder = self._encoder_on(decoder)
        centred = activations - self.b_dec
        found = selected(encoder, centred, self.b_enc, self.thresholds, self.k)
        kept = encoder.correlate_at(centred, found.index, self.b_enc, known=found.value)
        code = SparseCode(found.index, kept if self.gains is None else kept * self.gains[found.index])
        return decoder.synthesize(code) + self.b_dec, code

    def set_gradients(self, activations: Tensor) -> tuple[Tensor, SparseCode]:
        """(ĥ, code) as of `forward`, and as every `.grad` the gradient of the mean over b of ‖ĥ_b - h_b‖².

        The same numbers as autograd gives, but faster where the encoder is tied: to the last bit in float32
        and float64 on a CPU. Parameters that need no gradient get none. Hooks are not called.
        """
        step = self.decoder.tied_step(self.b_enc, self.b_dec, activations, self.k) if self._plain else None
        if step is None:
            self.zero_grad(set_to_none=True)
            rebuilt, code = self(activations)
            (rebuilt - activations).square().sum(dim=1).mean().backward()
            return rebuilt.detach(), SparseCode(code.index, code.value.detach())
        for parameter, gradient in ((self.b_enc, step.d_enc), (self.b_dec, step.d_dec)):
            parameter.grad = gradient if parameter.requires_grad else None
        return step.rebuilt, SparseCode(step.index, step.value)

    def undisturbed(self, activations: Tensor) -> AbstractContextManager[None]:
        """For a training step on these: see `kernels.threads.undisturbed`, where the backend wants it."""
        own = getattr(self.decoder.kernels(), "undisturbed", None)
        largest = max(activations.numel(), *(parameter.numel() for parameter in self.parameters()))
        return nullcontext() if own is None else own(largest)

    @torch.no_grad()
    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> int:
        """Turn features[i], decoder and free encoder, to residual[drawn[i]] and set its b_enc to 0.

        One whose sample vanishes on its support stays as it is. Returns how many were turned.
        """
        usable = self.decoder.aim(features, residual, drawn)
        features, drawn = features[usable], drawn[usable]
        if self.free is not None:
            self.free.aim(features, residual, drawn)
        self.b_enc[features] = 0
        return int(features.numel())

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Make an autoencoder of s·h into one of h, with s = `factor`: biases and thresholds are over s.

        Exact, since unit-norm W and E are untouched and top-k does not depend on a positive scale.
        """
        self.b_enc.div_(factor)
        self.b_dec.div_(factor)
        if self.thresholds is not None:
            self.thresholds.div_(factor)

    def save(self, path: str | Path, **metadata: Any) -> Path:
        """Write one safetensors file, true values only, biases, and the mask as a recipe; returns its path.

        Values have the autoencoder's `precision`, packed without gaps. `metadata` are JSON values kept beside
        those of `self.about`.

        Raises:
            UserError: a folder of that name, a value that is no JSON, a file that cannot be written, or
                parameters that were changed since they were rounded to the precision.
        """
        path = Path(path)
        weights_file.write(self.settled(), path, self.about | metadata)
        return path

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", backend: str = "auto"
    ) -> SparseAutoencoder:
        """What `save` wrote, its metadata as `about`. The mask is read or regenerated, and verified.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        return weights_file.read(cls, path, backend).to(device)
