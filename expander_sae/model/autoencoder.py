"""The TopK sparse autoencoder on a dictionary, and its weights file.

    z = Eᵀ(h − b_dec) + b_enc,   x = the k largest signed entries of z,   ĥ = W x + b_dec

with unit-norm columns W = colnorm(V) and E = W where the encoder is tied (arXiv 2607.01799, §3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.kernels import backends
from expander_sae.kernels.autograd import columns_and_inverse, through_unit_columns, unit_columns
from expander_sae.kernels.tied import tied_reconstruction, tied_step
from expander_sae.masks.learned import packed, stored_mask
from expander_sae.masks.recipe import Mask, describe
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.storage.arrays import as_tensor, norms_of
from expander_sae.storage.files import canonical_json
from expander_sae.storage.safetensors_files import load_tensors, save_tensors

ENCODERS = ("tied", "warm_tied", "independent", "own_support", "full")
FORMAT = "expander-sae/1"


class SparseAutoencoder(nn.Module):
    """A TopK autoencoder with parameters O(d·n).

    Parameters: values V [n, w] (dense: [n, m]), encoder E on a support of its own or of V's shape
    unless tied, b_enc [n], b_dec [m].

    Args:
        m, n, k: residual width, features, active features per token.
        mask: support of the columns; None is a dense dictionary.
        encoder: ``tied``; ``warm_tied``, free but started at W; ``independent``, free and random; for
            sparse decoders also ``own_support``, free and random on an independent mask of the same
            family, and ``full``, free, random and dense.
        backend: kernels of a sparse dictionary, see `expander_sae.kernels.backends.select`.

    Attribute `about`: JSON values that travel with the weights, such as `norm_limit`, the norm above
    which tokens are passed through and not encoded.

    Raises:
        UserError: k > n, an unknown encoder, an encoder that needs a mask and has none, or a mask of
            another shape.
    """

    rows: Tensor | None
    valid: Tensor | None
    encoder_rows: Tensor | None
    encoder_valid: Tensor | None
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
        self.encoder_mask = self._support_of_encoder()
        self.values = nn.Parameter(torch.zeros(n, _width(mask, m), dtype=dtype))
        encoder_width = _width(self.encoder_mask, m)
        self.encoder = None if encoder == "tied" else nn.Parameter(torch.zeros(n, encoder_width, dtype=dtype))
        self.b_enc = nn.Parameter(torch.zeros(n, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(m, dtype=dtype))
        apart = self.encoder_mask if self.encoder_mask is not mask else None
        for prefix, support in (("", mask), ("encoder_", apart)):
            rows = None if support is None else torch.from_numpy(support.rows)
            valid = None if support is None or support.regular else torch.from_numpy(support.valid())
            self.register_buffer(f"{prefix}rows", rows, persistent=False)
            self.register_buffer(f"{prefix}valid", valid, persistent=False)

    def _support_of_encoder(self) -> Mask | None:
        """Where E may be nonzero; None is everywhere."""
        if self.encoder_kind not in ("own_support", "full"):
            return self.mask
        if self.mask is None:
            raise UserError(
                f"encoder: found {self.encoder_kind!r} for a dense dictionary, expected tied, warm_tied or "
                "independent"
            )
        return None if self.encoder_kind == "full" else self.mask.recipe.generate("encoder_mask")

    @property
    def d(self) -> int:
        """Nonzeros a column: the recipe's d; m for a dense dictionary."""
        return self.m if self.mask is None else self.mask.recipe.d

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """V ~ N(0, 1)/√d on the support; biases 0; a free encoder at W or drawn alike on its own.

        A full encoder is N(0, 1)/√m.
        """

        def draw(parameter: Tensor, d: int) -> Tensor:
            # Drawn in float32 on the CPU, so that every dtype and device starts from one point.
            return torch.randn(parameter.shape, generator=generator) / d**0.5

        self.values.copy_(draw(self.values, self.d))
        self.b_enc.zero_()
        self.b_dec.zero_()
        if self.encoder is not None:
            if self.encoder_kind == "warm_tied":
                self.encoder.copy_(self._columns())
            else:
                self.encoder.copy_(draw(self.encoder, self.m if self.encoder_kind == "full" else self.d))

    def _on_support(self, values: Tensor) -> Tensor:
        return values if self.valid is None else values * self.valid

    def _columns(self) -> Tensor:
        return unit_columns(self._on_support(self.values))

    def _as_dictionary(self, columns: Tensor, rows: Tensor | None) -> Dictionary:
        if rows is None:
            return DenseDictionary(columns)
        return SparseDictionary(columns, rows, self.m, self._kernels(columns.shape[1]))

    def _kernels(self, width: int) -> ModuleType:
        return backends.select(self.backend, self.b_dec.device, self.m, width, self.b_dec.dtype)

    def _backend(self) -> ModuleType | None:
        """Kernels of the decoder; none of its own where it is dense."""
        return None if self.rows is None else self._kernels(self.values.shape[1])

    def dictionary(self) -> Dictionary:
        """The decoder W, unit-norm columns; differentiable in V."""
        return self._as_dictionary(self._columns(), self.rows)

    @property
    def encoder_support(self) -> tuple[Tensor | None, Tensor | None]:
        """(rows, valid places) of E; None is everywhere."""
        if self.encoder_mask is self.mask:
            return self.rows, self.valid
        return self.encoder_rows, self.encoder_valid

    def _encoder_on(self, decoder: Dictionary) -> Dictionary:
        if self.encoder is None:
            return decoder
        rows, valid = self.encoder_support
        return self._as_dictionary(self.encoder if valid is None else self.encoder * valid, rows)

    def own(self, values: Tensor | np.ndarray) -> Tensor:
        """A tensor or an array as a tensor of the autoencoder's device and dtype."""
        return as_tensor(values).to(self.b_dec.device, self.b_dec.dtype)

    def _check_rows(self, activations: Tensor | np.ndarray) -> None:
        """[B, m]; without this [B, 1] would be broadcast."""
        if activations.ndim != 2 or activations.shape[1] != self.m:
            raise UserError(f"activations: found shape {list(activations.shape)}, expected [B, m = {self.m}]")

    @property
    def norm_limit(self) -> float:
        """`about["norm_limit"]`; infinite where there is none."""
        limit = self.about.get("norm_limit")
        return math.inf if limit is None else float(limit)

    def encoded(self, activations: Tensor | np.ndarray, norms: np.ndarray | None = None) -> Tensor:
        """bool [N] on the CPU: which tokens the recipe encodes; the others are passed through unchanged.

        Encoded is a token of a norm of at most `norm_limit`, in float64, as the limit was made.

        Args:
            activations: [N, m]; a mapped file is read a few thousand rows at a time.
            norms: float64 [N], where they are known; `activations` are not read then.

        Raises:
            UserError: another shape.
        """
        rows = activations if isinstance(activations, np.ndarray) else as_tensor(activations)
        self._check_rows(rows)
        if self.norm_limit == math.inf:
            return torch.ones(len(rows), dtype=torch.bool)
        return torch.from_numpy((norms_of(rows) if norms is None else norms) <= self.norm_limit)

    @torch.no_grad()
    def encode(self, activations: Tensor | np.ndarray) -> SparseCode:
        """Code, on the autoencoder's device, of activations [B, m] of any device and numeric dtype.

        Raises:
            UserError: another shape; [B, T, m] is to be flattened first.
        """
        h = as_tensor(activations)
        self._check_rows(h)
        encoder = self._encoder_on(self.dictionary())
        return encoder.correlate_topk(self.own(h) - self.b_dec, self.b_enc, self.k)

    @torch.no_grad()
    def decode(self, code: SparseCode) -> Tensor:
        """ĥ [B, m], on the autoencoder's device, of a code of any device and dtype.

        Raises:
            UserError: index and value of different shapes, or an index that is neither −1 nor a feature.
        """
        index, value = as_tensor(code.index, "code.index"), as_tensor(code.value, "code.value")
        if index.ndim != 2 or index.shape != value.shape:
            shapes = f"index {list(index.shape)} and value {list(value.shape)}"
            raise UserError(f"code: found {shapes}, expected [B, k] of both")
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise UserError(f"code.index: found {index.dtype}, expected whole numbers")
        if index.numel():
            # Kernels look no index up: another one would read beyond the columns.
            low, high = (int(end) for end in torch.aminmax(index))
            if low < -1 or high >= self.n:
                found = low if low < -1 else high
                raise UserError(
                    f"code.index: found {found}, expected −1 (an empty place) to n − 1 = {self.n - 1}"
                )
        code = SparseCode(index.to(self.b_dec.device, torch.int64), self.own(value))
        return self.dictionary().synthesize(code) + self.b_dec

    def forward(self, activations: Tensor) -> tuple[Tensor, SparseCode]:
        """(ĥ [B, m], code); ĥ is differentiable in every parameter.

        The selection needs no gradient, and its k kept pre-activations are what the gradient
        starts from: it costs O(B·k·w), not O(B·n·w). Raises `UserError` for another shape.
        """
        self._check_rows(activations)
        if self.encoder is None:
            rebuilt, index, value = tied_reconstruction(
                self._columns(), self.b_enc, self.b_dec, activations, self.k, self.rows, self._backend()
            )
            return rebuilt, SparseCode(index, value)
        decoder = self.dictionary()
        encoder = self._encoder_on(decoder)
        centred = activations - self.b_dec
        selected = encoder.correlate_topk(centred, self.b_enc, self.k)
        kept = encoder.correlate_at(centred, selected.index, self.b_enc, known=selected.value)
        code = SparseCode(selected.index, kept)
        return decoder.synthesize(code) + self.b_dec, code

    def set_gradients(self, activations: Tensor) -> tuple[Tensor, SparseCode]:
        """(ĥ, code) as of `forward`, and as every `.grad` the gradient of the mean over b of ‖ĥ_b - h_b‖².

        The same numbers as autograd gives, but faster where the encoder is tied: to the last bit in float32
        and float64 on a CPU. Parameters that need no gradient get none. Hooks are not called.
        """
        if self.encoder is not None:
            self.zero_grad(set_to_none=True)
            rebuilt, code = self(activations)
            (rebuilt - activations).square().sum(dim=1).mean().backward()
            return rebuilt.detach(), SparseCode(code.index, code.value.detach())
        with torch.no_grad():
            columns, inverse = columns_and_inverse(self._on_support(self.values))
            step = tied_step(columns, self.b_enc, self.b_dec, activations, self.k, self.rows, self._backend())
            d_values = self._on_support(through_unit_columns(step.d_columns, columns, inverse))
        parameters = (self.values, self.b_enc, self.b_dec)
        for parameter, gradient in zip(parameters, (d_values, step.d_enc, step.d_dec), strict=True):
            parameter.grad = gradient if parameter.requires_grad else None
        return step.rebuilt, SparseCode(step.index, step.value)

    def undisturbed(self, activations: Tensor) -> AbstractContextManager[None]:
        """For a training step on these: see `kernels.threads.undisturbed`, where the backend wants it."""
        own = getattr(self._backend(), "undisturbed", None)
        largest = max(activations.numel(), *(parameter.numel() for parameter in self.parameters()))
        return nullcontext() if own is None else own(largest)

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Make an autoencoder of s·h into one of h, with s = `factor`: both biases are divided by s.

        Exact, since unit-norm W and E are untouched and top-k does not depend on a positive scale.
        """
        self.b_enc.div_(factor)
        self.b_dec.div_(factor)

    def _on_edges(self) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """(name, parameter, its true places or None for all) of what lies on a support."""
        yield "values", self.values, self.valid
        if self.encoder is not None:
            yield "encoder", self.encoder, self.encoder_support[1]

    def save(self, path: str | Path, **metadata: Any) -> Path:
        """Write one safetensors file, true values only, biases, and the mask as a recipe; returns its path.

        Args:
            path: the file.
            metadata: JSON values kept beside those of `self.about`.

        Raises:
            UserError: a folder of that name, a value that is no JSON, or a file that cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            raise UserError(f"{path}: a folder, expected the name of a file to write")
        for key, value in (self.about | metadata).items():
            try:
                canonical_json(value)
            except (TypeError, ValueError, RecursionError):
                raise UserError(f"{key}: found {type(value).__name__}, expected a JSON value") from None
        tensors = {"b_enc": self.b_enc.detach(), "b_dec": self.b_dec.detach()}
        for name, parameter, valid in self._on_edges():
            kept = parameter.detach()
            tensors[name] = kept if valid is None else kept[valid]
        if self.mask is not None and self.mask.learned:
            tensors["rows"] = packed(self.mask)
        header: dict[str, Any] = {
            "format": FORMAT,
            "shape": {"m": self.m, "n": self.n, "k": self.k},
            "encoder": self.encoder_kind,
            "mask": None if self.mask is None else describe(self.mask),
            "about": self.about | metadata,
        }
        if self.encoder_mask is not None and self.encoder_mask is not self.mask:
            header["encoder_mask"] = {"sha256": self.encoder_mask.sha256}
        save_tensors(tensors, path, header)
        return path

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", backend: str = "auto"
    ) -> SparseAutoencoder:
        """What `save` wrote, its metadata as `about`. The mask is regenerated and verified.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        tensors, header = load_tensors(path)
        if header.get("format") != FORMAT:
            raise UserError(f"{path}: format {header.get('format')!r}, expected {FORMAT!r}")
        try:
            mask = stored_mask(header, tensors, path)
            loaded = cls(
                **header["shape"],
                mask=mask,
                encoder=header["encoder"],
                backend=backend,
                dtype=tensors["b_enc"].dtype,
            )
            _verify_encoder(loaded, header.get("encoder_mask"), path)
            places = {name: valid for name, _, valid in loaded._on_edges()}
            with torch.no_grad():
                for name, parameter in loaded.named_parameters():
                    if (valid := places.get(name)) is not None:
                        parameter[valid] = tensors[name]
                    elif parameter.shape != tensors[name].shape:
                        raise ValueError(f"{name} has shape {list(tensors[name].shape)}")
                    else:
                        parameter.copy_(tensors[name])
            loaded.about = header["about"]
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{path}: damaged weights ({error})") from None
        return loaded.to(device)


def _width(mask: Mask | None, m: int) -> int:
    return m if mask is None else mask.width


def _verify_encoder(loaded: SparseAutoencoder, record: dict[str, Any] | None, path: str | Path) -> None:
    mask = loaded.encoder_mask
    if record is not None and mask is not None and mask.sha256 != record["sha256"]:
        raise UserError(
            f"{path}: encoder_mask sha256 {record['sha256']}, regenerated {mask.sha256}; was the file "
            "altered?"
        )
