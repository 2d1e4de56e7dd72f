"""The one table of supports: which rows the columns of a decoder may write, and all that hangs on that.

A line of `SUPPORTS` is all that a new support needs: configurations, planning, training, files, figures and
tables ask this table. It names code as ``module:name`` and imports it when it is used, so that planning needs
neither numpy nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pkgutil import resolve_name
from typing import Any

from expander_sae.errors import UserError
from expander_sae.masks import shapes

SPARSE = "expander_sae.model.sparse:Sparse"
DENSE = "expander_sae.model.dense:Dense"
_MODEL = "expander_sae.model."
_FAMILIES = "expander_sae.masks.families:"
_FREE = ("warm_tied", "independent", "own_support", "full")

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
        require: raises `UserError` for m, n, d (and the number) that the family cannot have.
        distinct: how many different supports n columns of d entries have on m rows, where that is a dose.
        full: each column has all m entries, so there is no d to choose.
        fit: of a dictionary that nobody trains: the function (columns, sample) that sets its columns from the
            training tokens, see model/fitted.py. Such a run has 0 steps.
        freeze: what training leaves as it began: ``decoder``, ``encoder``, or ``soft``, the decoder near its
            start; "" for nothing.
        floor: what others have to beat to show that anything was learned.
        shape: (m, n, d, k) of a configuration to n, d, k of the run; None: as they are, d = m where full.
        seeded: whether a seed changes anything. One that it does not has the seed 0.
        encoders: the encoders that make sense; () for all that there are.
        rebuilds: whether codes by the encoder rebuild activations; otherwise only pursuits do.
        parent: the support whose tied run of the same seed this one starts from.
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
    require: Callable[..., object] | None = None
    distinct: Callable[..., int] | None = None
    full: bool = False
    fit: str | Callable[..., Any] | None = None
    freeze: str = ""
    floor: bool = False
    shape: Callable[[int, int, int, int], tuple[int, int, int]] | None = None
    seeded: bool = True
    encoders: tuple[str, ...] = ()
    rebuilds: bool = True
    parent: str | None = None
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
        return f"{self.name}<{self.counts}>" if self.counts else self.name

    @property
    def trained(self) -> bool:
        """Whether steps of training make it."""
        return self.fit is None

    @property
    def learns_columns(self) -> bool:
        """Whether training moves its columns, the decoder's and those of an encoder that has its own."""
        return self.trained and self.freeze not in ("decoder", "encoder")

    @property
    def written_out(self) -> bool:
        """Whether its columns are computed with as vectors of all m entries."""
        return self.full or not self.trained

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
        """The function `fit`."""
        return resolve_name(self.fit) if isinstance(self.fit, str) else self.fit

    @property
    def _number(self) -> tuple[int, ...]:
        return () if self.number is None else (self.number,)


SUPPORTS: dict[str, Support] = {
    one.name: one
    for one in (
        Support("expander", _FAMILIES + "expander", require=shapes.require_cover, distinct=lambda m, n, d: n,
                order=0, control="expander: d random rows",
                frontier=("expander", "Expander (d random rows per column)"),
                look=("blue", "o", "-", 1.4, 5.2), pursued=("vermillion", "^", "-", 1.4, 5.6)),
        Support("bernoulli", _FAMILIES + "bernoulli",
                order=4, control="Bernoulli: as many nonzeros, anywhere",
                frontier=("Bernoulli", "Bernoulli: as many nonzeros, anywhere"),
                look=("green", "s", ":", 0.8, 4.4)),
        Support("clustered", _FAMILIES + "clustered",
                order=6, control="clustered: ⌊m/d⌋ supports, rows left out",
                frontier=("clustered", "Clustered: ⌊m/d⌋ disjoint supports, shared"),
                look=("orange", "D", ":", 0.8, 4.2)),
        Support("clustered_cover", _FAMILIES + "clustered_cover", require=shapes.require_cover,
                distinct=shapes.starts, order=5, control="covering clustered: m/gcd(m, d) supports",
                frontier=("covering clustered", "Covering clustered: supports wrap, no row left out"),
                look=("purple", "p", ":", 0.8, 5.2)),
        Support("right_regular", _FAMILIES + "right_regular", require=shapes.require_cover,
                distinct=lambda m, n, d: n, order=1, control="right-regular: rows equally used too",
                look=("sky", "X", ":", 0.8, 5.0)),
        Support("girth6", _FAMILIES + "girth6", require=shapes.girth6_lines,
                order=2, control="girth 6: no two columns share two rows",
                look=("#7F7F00", ">", ":", 0.8, 5.0)),
        Support("min_overlap", _FAMILIES + "min_overlap", require=shapes.require_cover,
                order=3, control="fewest shared pairs of rows", look=("#332288", "<", ":", 0.8, 5.0)),
        Support("dose", _FAMILIES + "dose", counts="number of distinct supports",
                require=shapes.require_supports, distinct=lambda m, n, d, supports: supports),
        Support("small_dense", decoder=DENSE, full=True, in_configs=False, order=8,
                frontier=("small dense", "Small dense: n′ = ⌊d·n/m⌋ features, equal storage"),
                look=("black", "P", ":", 0.8, 5.2)),
        Support("dense", decoder=DENSE, full=True, order=9, frontier=("dense", "Dense, all n features"),
                look=("black", "h", "--", 1.0, 5.2), pursued=("muted", "v", "-.", 1.0, 5.0)),
        Support("pruned_retuned", parent="dense",
                order=7, control="pruned from a dense SAE, retrained", look=("#8C564B", "*", ":", 0.8, 6.6)),
        Support("pca", decoder=_MODEL + "principal:Principal", fit=_MODEL + "principal:fit", floor=True,
                full=True, shape=shapes.both_signs, seeded=False, encoders=("tied",), order=11,
                look=("#4D4D4D", "1", ":", 0.8, 6.0)),
        Support("random", decoder=_MODEL + "coloured:Coloured", fit=_MODEL + "coloured:fit", floor=True,
                encoders=("tied",), rebuilds=False, order=12, look=("#4D4D4D", "2", ":", 0.8, 6.0)),
        Support("exemplars", decoder=_MODEL + "exemplars:Exemplars", fit=_MODEL + "exemplars:fit",
                floor=True, full=True, seeded=False, encoders=("tied",), rebuilds=False, order=13,
                look=("#4D4D4D", "3", ":", 0.8, 6.0)),
        Support("frozen_decoder", _FAMILIES + "expander", decoder=_MODEL + "frozen:FrozenDecoder",
                require=shapes.require_cover, freeze="decoder", floor=True, encoders=_FREE, order=14,
                look=("#4D4D4D", "v", ":", 0.8, 4.4)),
        Support("frozen_encoder", _FAMILIES + "expander", decoder=_MODEL + "frozen:FrozenEncoder",
                require=shapes.require_cover, freeze="encoder", floor=True, encoders=_FREE, order=15,
                look=("#4D4D4D", "^", ":", 0.8, 4.4)),
        Support("soft_frozen", _FAMILIES + "expander", decoder=_MODEL + "frozen:SoftFrozen",
                require=shapes.require_cover, freeze="soft", floor=True, order=16,
                look=("#4D4D4D", "4", ":", 0.8, 6.0)),
    )
}  # fmt: skip
"""Name → support, in the order in which messages list them."""

BUILT_IN = frozenset(SUPPORTS)


def register(new: Support) -> None:
    """Add a support, as a line of `SUPPORTS` does; `UserError`: it is taken, or no path can hold it."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", new.name) or find(new.name):
        expected = "a new name of letters, digits and underscores"
        raise UserError(f"support: found {new.name!r}, expected {expected}")
    SUPPORTS[new.name] = new


def find(name: str) -> Support | None:
    """The support of this name, ``dose64`` being `dose` with the number 64; None where there is none."""
    known = SUPPORTS.get(name)
    if known is not None:
        return None if known.counts else known
    kind = name.rstrip("0123456789")
    known, digits = SUPPORTS.get(kind), name[len(kind) :]
    if known is None or not known.counts or not digits or digits[0] == "0":
        return None
    return replace(known, name=name, number=int(digits))


def support_of(name: str) -> Support:
    """The support of this name; `UserError` where there is none."""
    known = find(name)
    if known is None:
        raise UserError(f"support: found {name!r}, expected one of {_listed(configurable())}")
    return known


def family(name: str) -> Support:
    """The support of this name whose masks a recipe generates; `UserError` where there is none."""
    known = find(name)
    if known is None or known.make is None:
        raise UserError(f"mask family: found {name!r}, expected one of {_listed(families())}")
    return known


def learned(name: str) -> bool:
    """Whether no recipe generates the masks of this support, so that rows are stored with the weights."""
    known = find(name)
    return known is not None and known.make is None


def described(name: str) -> Support:
    """The support of this name, or one of that name without any properties: tables may hold any."""
    return find(name) or Support(name)


def support_order(name: str) -> tuple[int, int, str]:
    """Sort key of supports; doses by their number."""
    known = described(name)
    return known.order, known.number or 0, name


def families() -> list[Support]:
    """Those whose masks a recipe generates."""
    return [known for known in SUPPORTS.values() if known.make is not None]


def configurable() -> list[Support]:
    """Those that a configuration may ask for."""
    return [known for known in SUPPORTS.values() if known.in_configs]


def on_frontier() -> list[str]:
    """Names in the order in which the frontier page draws them; others follow by name."""
    return [name for name, known in SUPPORTS.items() if known.frontier]


def followed() -> list[str]:
    """Names of those that figures show read by the encoder and by a pursuit."""
    return [name for name, known in SUPPORTS.items() if known.pursued]


def _listed(known: list[Support]) -> str:
    return ", ".join(one.shown for one in known)
