"""What an autoencoder asks of its decoder's columns, whatever these are made of.

A kind of decoder is one module with a class of `Columns`, and a line of masks/supports.py that names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.errors import UserError
from expander_sae.kernels.autograd import columns_and_inverse, through_unit_columns, unit_columns
from expander_sae.kernels.tied import TiedStep, tied_reconstruction, tied_step
from expander_sae.machine.piece_sizes import AIMED_ENTRIES
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.supports import described
from expander_sae.model import rounding
from expander_sae.model.dictionary import Dictionary, SparseCode
from expander_sae.model.held_parameters import HeldParameters
from expander_sae.model.precisions import FLOAT32
from expander_sae.storage.files import canonical_json


class Columns(HeldParameters, ABC):
    """n columns in R^m: those of a decoder at unit norm, or those of a free encoder as they are.

    A kind registers its parameters in `__init__`; files and checkpoints hold them under their names.

    Args:
        support: family, m, n, d and seed, and of a kind on a mask the mask.
        backend: kernels of sparse columns, see `expander_sae.kernels.backends.select`.
        free: columns of an encoder. There `values` is called ``encoder``, another name ``encoder_`` name.
    """

    grows = False
    """Whether training may exchange the rows of columns for others, see `grow`."""

    apart: type[Columns] | None = None
    """The kind of an encoder's own columns on the same support; None: that of the decoder."""

    encoder_mask: Mask | None = None
    """The mask of an encoder on a support of its own, where it need not be made."""

    def __init__(
        self,
        support: Mask | MaskRecipe,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
        free: bool = False,
    ) -> None:
        super().__init__(free)
        self.mask = support if isinstance(support, Mask) else None
        self.recipe = support.recipe
        self.m, self.n, self.d = self.recipe.m, self.recipe.n, self.recipe.d
        self.backend, self.dtype = backend, dtype
        self.frozen = False

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Start at random, drawn in float32 on the CPU: every dtype and device starts from one point."""

    @abstractmethod
    def dictionary(self) -> Dictionary:
        """The columns, differentiable in the parameters; of unit norm but for a free encoder."""

    def freeze(self) -> None:
        """From now on neither training nor re-aiming moves the columns."""
        self.frozen = True
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def constrain(self) -> None:
        """Bring the columns back to where they may be; called after each step of training."""

    @property
    def most_active(self) -> int:
        """The largest k that makes sense."""
        return self.n

    @property
    def words(self) -> str:
        """What the columns are, as a reader is told."""
        if self.mask is None:
            return "dense columns"
        return f"columns of {self.d} nonzeros on a {'learned' if self.mask.learned else 'fixed random'} mask"

    @property
    def shared_bytes(self) -> int:
        """Bytes of `value_bytes` that autoencoders of one layer can have in common."""
        return 0

    @property
    def named_by(self) -> int | None:
        """Bytes of token ids that name the columns to whoever has the language model; None: nothing does."""
        return None

    @abstractmethod
    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        """Turn column features[i] to residual[drawn[i]], as far as its support allows; residual [B, m].

        A column whose sample vanishes on its support stays. Returns bool [S], which could be turned.
        """

    def column_sizes(self) -> dict[str, int]:
        """Name of each parameter that holds columns → the number of values of one: they start at 1/√of it."""
        return {name: self.d for name, _ in self.named_parameters()}

    def read_by(self, name: str) -> Columns | None:
        """`encoder` of a name that the support allows; `UserError` for another one."""
        known = described(self.recipe.family)
        if known.encoders and name not in known.encoders:
            expected = f"{'one of ' if len(known.encoders) > 1 else ''}{', '.join(known.encoders)}"
            raise UserError(f"encoder: found {name!r} for {known.name}, expected {expected}")
        return self.encoder(name)

    def tied_encoder(self, decoder: Dictionary) -> Dictionary:
        """What a tied encoder correlates with, `decoder` being what `dictionary` has just given."""
        return decoder

    def encoder(self, name: str) -> Columns | None:
        """The columns of an encoder of this name, see `ENCODERS`; None where it is the decoder's own."""
        if name == "tied":
            return None
        if name in ("warm_tied", "independent"):
            return (self.apart or type(self))(self.mask or self.recipe, self.backend, self.dtype, free=True)
        found = f"{name!r} for a {self.recipe.family} dictionary"
        raise UserError(f"encoder: found {found}, expected tied, warm_tied or independent")

    def start_at(self, decoder: Columns) -> None:
        """Start a free encoder at a decoder of the same kind and support."""
        raise UserError(f"encoder: found 'warm_tied' for support {self.recipe.family}, expected another")

    def grow(self, share: float, code: SparseCode, error: Tensor, centred: Tensor) -> Tensor:
        """Exchange rows of columns that `grows`; see model/grown.py."""
        raise UserError(f"support {self.recipe.family}: found rows that stay, expected some that are learned")

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the parameters."""
        return {}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Take over `state`, before the parameters are."""

    @torch.no_grad()
    def go_on_from(self, trained: Columns) -> None:
        """Start where columns of the same kind and support ended; those of a decoder at unit norm.

        Training lengthens what is used at unit norm, and what was rounded is whole levels: a rate of training
        would mean another thing.
        """
        self.resume(trained.state())
        sizes = {} if self.free else self.column_sizes()
        theirs: dict[str, Tensor] = dict(trained.named_parameters())
        for name, parameter in self.named_parameters():
            valid, values = self.valid_of(name), theirs[name].detach()
            if name in sizes:
                values = unit_columns(values if valid is None else values * valid)
            parameter.copy_(values)

    def kernels(self) -> ModuleType | None:
        """The backend of the columns, where they have one."""
        return None

    def tied(self, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """(ĥ, index, value) of a tied autoencoder at once, as of `tied_reconstruction`; None: no such way."""
        return None

    def tied_step(self, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int) -> TiedStep | None:
        """A step of a tied autoencoder that sets the gradients without autograd; None: no such way."""
        return None

    def record(self) -> dict[str, Any] | None:
        """What a weights file says of the support."""
        return {"recipe": asdict(self.recipe)}

    @classmethod
    def recorded(
        cls, record: dict[str, Any] | None, tensors: dict[str, Tensor], origin: str | Path
    ) -> Mask | MaskRecipe | None:
        """The support of a weights file that has this `record`, compared with the tensors before it is made.

        Raises:
            UserError: it is malformed, of another size than the tensors, or altered.
            KeyError, TypeError: record or tensors lack something.
        """
        recipe = MaskRecipe(**(record or {})["recipe"])
        size = tensors["b_dec"].numel(), tensors["b_enc"].numel()
        if (recipe.m, recipe.n) != size:
            found = f"a support of m = {recipe.m}, n = {recipe.n} beside biases of {size[0]} and {size[1]}"
            raise UserError(f"{origin}: {found}; was the file altered?")
        return recipe

    @property
    def row_bytes(self) -> int:
        """Bytes of explicit row indices, and of column degrees where these differ."""
        if self.mask is None:
            return 0
        return self.mask.row_bytes if self.precision.name == FLOAT32 else self.mask.packed_row_bytes

    @property
    def record_bytes(self) -> int:
        """Bytes of the record, and of the rows where they are stored with the weights."""
        record = self.record()
        size = 0 if record is None else len(canonical_json(record).encode())
        return size + (self.row_bytes if self.mask is not None and self.mask.learned else 0)


class Entries(Columns):
    """Columns whose one parameter is their entries: values [n, w].

    rows: int32 [n, w], the place of each entry; None: w = m. valid: bool [n, w], which entries are no
    padding of an irregular mask; None: all. single: bool [n, 1], which columns have one entry; None: none.
    """

    @property
    def rows(self) -> Tensor | None:
        return None

    @property
    def valid(self) -> Tensor | None:
        return None

    @property
    def single(self) -> Tensor | None:
        return None

    def _register(self, width: int) -> None:
        self.values = nn.Parameter(torch.zeros(self.n, width, dtype=self.dtype))

    @abstractmethod
    def _dictionary(self, entries: Tensor) -> Dictionary:
        """A dictionary of these entries [n, w]."""

    @abstractmethod
    def _restricted(self, residual: Tensor, drawn: Tensor, features: Tensor) -> Tensor:
        """Sample drawn[i] of residual [B, m] on the support of features[i]: [S, w], 0 in padding."""

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """N(0, 1)/√d on the support."""
        self.values.copy_(torch.randn(self.values.shape, generator=generator) / self.d**0.5)

    @torch.no_grad()
    def start_at(self, decoder: Columns) -> None:
        assert isinstance(decoder, Entries)
        self.values.copy_(unit_columns(decoder._on_support(decoder.values), decoder.single))

    def valid_of(self, name: str) -> Tensor | None:
        return self.valid

    def _on_support(self, values: Tensor) -> Tensor:
        return values if self.valid is None else values * self.valid

    def _entries(self) -> Tensor:
        """The values as they are used."""
        entries = self._on_support(self.values)
        return rounding.straight_through(entries, self.valid, self.precision) if self.rounds else entries

    def dictionary(self) -> Dictionary:
        entries = self._entries()
        return self._dictionary(entries if self.free else unit_columns(entries, self.single))

    def tied(self, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        columns = unit_columns(self._entries(), self.single)
        return tied_reconstruction(columns, b_enc, b_dec, h, k, self.rows, self.kernels())

    @torch.no_grad()
    def tied_step(self, b_enc: Tensor, b_dec: Tensor, h: Tensor, k: int) -> TiedStep:
        columns, inverse = columns_and_inverse(self._entries(), self.single)
        step = tied_step(columns, b_enc, b_dec, h, k, self.rows, self.kernels())
        gradient = self._on_support(through_unit_columns(step.d_columns, columns, inverse))
        self.values.grad = gradient if self.values.requires_grad else None
        return step

    @torch.no_grad()
    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        """A decoder's column gets the sample divided by √d, an encoder's the sample at unit norm."""
        if self.frozen:
            return torch.zeros_like(features, dtype=torch.bool)
        size = max(1, AIMED_ENTRIES // self.values.shape[1])
        pieces = zip(features.split(size), drawn.split(size), strict=True)
        return torch.cat([self._aim(some, residual, samples) for some, samples in pieces])

    def _aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        direction = self._restricted(residual, drawn, features)
        norm = direction.norm(dim=1, keepdim=True)
        usable = (norm > 0).flatten()
        length = norm[usable] if self.free else self.d**0.5
        self.values[features[usable]] = direction[usable] / length
        return usable
