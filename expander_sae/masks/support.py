"""One support: which rows the columns of a decoder may write, and all that hangs on that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import Any

from expander_sae.errors import UserError
from expander_sae.masks import shapes

SPARSE = "expander_sae.model.sparse:Sparse"

Drawn = tuple[str, str, str, float, float]
"""Colour (a name of the palette in figures/style.py, or a hex code), marker, line, its width, marker size."""


@dataclass(frozen=True)
class Support:
    """One support. Only the name is needed; a mask family also needs `make`, another decoder `decoder`.

    Args:
        name: in configurations, tables, paths and figures: letters, digits and underscores.
        make: the function of a mask family, see masks/families.py; None where no recipe gives the rows.
        decoder: the class of the decoder's columns, see model/columns.py.
        counts: what the whole number behind the name counts, such as the 64 of ``dose64``; "" for none.
        usual: the number of the name alone, which nothing else may then name; None: the name needs one.
        require: raises `UserError` for m, n, d (and the number) that the family cannot have.
        distinct: how many different supports n columns of d entries have on m rows, where that is a dose.
        full: each column has all m entries, so there is no d to choose.
        fit: of a dictionary that nobody trains: the function (columns, sample) that sets its columns from the
            training tokens, see model/fitted.py. Such a run has 0 steps.
        prepare: the function (columns, sample) that sets from the training tokens what training then leaves.
        pieces: (m, n, d) and the number to the matrices that the columns are computed with, for estimates of
            time and memory; None: n columns of d entries, or of all m where they are written out.
        freeze: what training leaves as it began: ``decoder``, ``encoder``, or ``soft``, the decoder near its
            start; "" for nothing.
        floor: what others have to beat to show that anything was learned.
        shape: (m, n, d, k) of a configuration to n, d, k of the run; None: as they are, d = m where full.
        seeded: whether a seed changes anything. One that it does not has the seed 0.
        encoders: the encoders that make sense; () for all that there are.
        rebuilds: whether codes by the encoder rebuild activations; otherwise only pursuits do.
        parent: the support whose tied run of the same seed this one starts from.
        imported: of an autoencoder that is read from its files. Such a run has 0 steps.
        in_configs: a configuration may ask for it; otherwise only figures tell it apart.
        order: of figures and tables of controls; by name among equals.
        control: its words in the figure of controls; one with words is missed there where it was not run.
        frontier: its short name and its words on the frontier page, which draws these first, in table order.
        look, pursued: how it is drawn when read by its encoder, and by a pursuit. One that has both looks is
            followed by both everywhere. Others take spare looks.
        number: of a support that counts, once its name is read.
    """

    name: str
    make: str | Callable[..., Any] | None = None
    decoder: str | type = SPARSE
    counts: str = ""
    usual: int | None = None
    require: Callable[..., object] | None = None
    distinct: Callable[..., int] | None = None
    full: bool = False
    fit: str | Callable[..., Any] | None = None
    prepare: str | Callable[..., Any] | None = None
    pieces: Callable[..., tuple[shapes.Piece, ...]] | None = None
    freeze: str = ""
    floor: bool = False
    shape: Callable[[int, int, int, int], tuple[int, int, int]] | None = None
    seeded: bool = True
    encoders: tuple[str, ...] = ()
    rebuilds: bool = True
    parent: str | None = None
    imported: bool = False
    in_configs: bool = True
    order: int = 10
    control: str = ""
    frontier: tuple[str, str] | None = None
    look: Drawn | None = None
    pursued: Drawn | None = None
    number: int | None = None

    @property
    def short(self) -> str:
        """The name in running text."""
        return self.frontier[0] if self.frontier else self.name

    @property
    def legend(self) -> str:
        """The words in the legend of the frontier page."""
        return self.frontier[1] if self.frontier else self.name.replace("_", " ")

    @property
    def shown(self) -> str:
        """The name as an error message lists it."""
        if not self.counts:
            return self.name
        number = f"<{self.counts}>"
        return self.name + (number if self.usual is None else f"[{number}]")

    @property
    def trained(self) -> bool:
        """Whether steps of training make it."""
        return self.fit is None and not self.imported

    @property
    def learns_columns(self) -> bool:
        """Whether training moves its columns, the decoder's and those of an encoder that has its own."""
        return self.trained and self.freeze not in ("decoder", "encoder")

    @property
    def fitted(self) -> bool:
        """Whether all or a part of it is set from the training tokens."""
        return bool(self.fit or self.prepare)

    @property
    def written_out(self) -> bool:
        """Whether its columns are computed with as vectors of all m entries."""
        return self.full or not self.trained

    @property
    def beside(self) -> bool:
        """Whether it stands beside what a study is about: a floor, or an autoencoder from elsewhere."""
        return self.floor or self.imported

    @property
    def asks_d(self) -> bool:
        """Whether a d has to be chosen for it."""
        return not self.full or self.shape is not None

    def sized(self, m: int, n: int, d: int, k: int) -> tuple[int, int, int]:
        """(n, d, k) of a run for which a configuration asks these."""
        return self.shape(m, n, d, k) if self.shape else (n, m if self.full else d, k)

    def impossible(self, m: int, n: int, d: int) -> str | None:
        """Why there is no mask of this shape, 1 ≤ d ≤ m; None where nothing speaks against it."""
        try:
            self.check(m, n, d)
        except UserError as error:
            return str(error)
        return None

    def check(self, m: int, n: int, d: int) -> None:
        """Raise `UserError` for a shape that the family cannot have."""
        if self.require:
            self.require(m, n, d, *self._number)

    def computed_with(self, m: int, n: int, d: int) -> tuple[shapes.Piece, ...]:
        """The matrices that n columns are computed with."""
        if self.pieces:
            return self.pieces(m, n, d, *self._number)
        return (shapes.Piece(m, n, m if self.written_out else d),)

    def distinct_supports(self, m: int, n: int, d: int) -> int | None:
        """How many different supports the columns have; None for a family that is no step of a dose."""
        return self.distinct(m, n, d, *self._number) if self.distinct else None

    def function(self) -> Callable[..., Any]:
        """The function of a mask family, (m, n, d, stream) -> (rows, degrees)."""
        function: Any = resolve_name(self.make) if isinstance(self.make, str) else self.make
        return function if self.number is None else partial(function, supports=self.number)

    def columns(self) -> Any:
        """The class of the decoder's columns."""
        return resolve_name(self.decoder) if isinstance(self.decoder, str) else self.decoder

    def fitting(self) -> Any:
        """The function `fit`, or else `prepare`, of a support that has one."""
        function = self.fit or self.prepare
        return resolve_name(function) if isinstance(function, str) else function

    @property
    def _number(self) -> tuple[int, ...]:
        return () if self.number is None else (self.number,)
