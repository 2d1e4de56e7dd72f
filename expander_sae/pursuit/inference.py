"""The one table of inferences: whatever maps activations to a sparse code. Evaluation asks not which.

All pursuits select by signed correlation, as the encoder's top-k does, decode h − b_dec on the same
frozen decoder and keep at most k features.

The table names code as ``module:name`` and imports it when it is used, so that configurations are checked
with it without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from expander_sae.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from expander_sae.model.autoencoder import SparseAutoencoder
    from expander_sae.model.dictionary import SparseCode


ENCODER = "encoder"
"""The autoencoder's own encoder; every other inference is a pursuit."""

Inference = Callable[["SparseAutoencoder", "Tensor"], "SparseCode"]
"""(autoencoder, activations [B, m]) -> code."""


@dataclass(frozen=True)
class Method:
    """A line of the table: an `Inference` and what is said of it.

    Args:
        name: in configurations, tables and commands.
        function: what is called.
        counts: what the whole number behind the name counts, such as the 4 of ``block_omp_4``; "" for none.
        everywhere: a configuration may measure all of a run with it (`evaluation.inference`), and not only
            compare pursuits (`evaluation.pursuits`).
        label: in figures and tables.
        look: how figures draw it: colour, marker, line, its width, marker size.
        number: of one that counts, once its name is read; given to `function` as `number`.
    """

    name: str
    function: str | Callable[..., SparseCode]
    counts: str = ""
    everywhere: bool = False
    label: str = ""
    look: tuple[str, str, str, float, float] | None = None
    number: int | None = None

    def __call__(self, autoencoder: SparseAutoencoder, activations: Tensor) -> SparseCode:
        return self._call(autoencoder, activations)

    def _call(self, *arguments: Any, **keywords: Any) -> SparseCode:
        function: Any = resolve_name(self.function) if isinstance(self.function, str) else self.function
        return function(*arguments, **keywords, **({} if self.number is None else {"number": self.number}))

    @property
    def kind(self) -> str:
        """The name without its number."""
        return self.name if self.number is None else self.name.removesuffix(f"_{self.number}")

    @property
    def shown(self) -> str:
        """The name as an error message lists it."""
        return f"{self.name}_L with L {self.counts}" if self.counts else self.name


class Pursuit(Method):
    """A pursuit on the decoder; its function is (dictionary, target [B, m], k, selection=...) -> code."""

    def __call__(self, autoencoder: SparseAutoencoder, activations: Tensor) -> SparseCode:
        if autoencoder.counts_vary:
            found = "an encoder whose thresholds decide how many features a token has"
            raise UserError(f"k: found {found}, expected a number for {self.name}; see pursuit/budget.py")
        dictionary, offset = autoencoder.dictionary(), autoencoder.b_dec.detach()
        if offset.element_size() > 2:
            return self._call(dictionary, activations - offset, autoencoder.k, selection="signed")
        # Least squares and the rules to stop need more digits than 16 bits have.
        wide = dictionary.changed(lambda entries: entries.detach().float())
        code = self._call(wide, activations.float() - offset.float(), autoencoder.k, selection="signed")
        return replace(code, value=code.value.to(offset.dtype))


INFERENCES: dict[str, Method] = {
    one.name: one
    for one in (
        Method(ENCODER, "expander_sae.model.autoencoder:SparseAutoencoder.encode", everywhere=True,
                  label="trained encoder", look=("blue", "o", "-", 1.2, 5.0)),
        Pursuit("omp", "expander_sae.pursuit.omp:omp", everywhere=True,
                label="OMP", look=("vermillion", "^", "-", 1.2, 5.4)),
        Pursuit("niht", "expander_sae.pursuit.niht:niht",
                label="NIHT", look=("green", "s", "--", 1.0, 4.4)),
        Pursuit("cosamp", "expander_sae.pursuit.cosamp:cosamp",
                label="CoSaMP", look=("purple", "D", "--", 1.0, 4.2)),
        Pursuit("block_omp", "expander_sae.pursuit.omp:omp_in_rounds", counts="columns a round",
                everywhere=True, label="block OMP"),
    )
}  # fmt: skip
"""Name → inference, in the order of results and messages."""


def find(name: str) -> Method | None:
    """The inference of this name, ``block_omp_4`` being `block_omp` with the number 4; None: no such."""
    if name in INFERENCES and not INFERENCES[name].counts:
        return INFERENCES[name]
    kind, _, digits = name.rpartition("_")
    known = INFERENCES.get(kind)
    if known is None or not known.counts or not digits.isdecimal() or digits[0] == "0":
        return None
    return replace(known, name=name, number=int(digits))


def rounds_of(name: str, k: int) -> int | None:
    """Rounds in which this inference chooses k columns; None where it is not one that chooses for good."""
    known = find(name)
    if known is None or known.kind not in ("omp", "block_omp"):
        return None
    return -(-k // (known.number or 1))


def inferences(name: str) -> Method:
    """The inference of this name, such as ``encoder``, ``omp`` or ``block_omp_{L}``; `UserError`: no such."""
    known = find(name)
    if known is None:
        listed = ", ".join(one.shown for one in INFERENCES.values())
        raise UserError(f"inference: found {name!r}, expected one of {listed}")
    return known


def register(new: Method) -> None:
    """Add an inference, as a line of `INFERENCES` does; `UserError` where its name is taken."""
    if find(new.name) or new.name in INFERENCES:
        raise UserError(f"inference: found {new.name!r}, expected a new name")
    INFERENCES[new.name] = new


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each of these names of inferences once, in the order of the table, and by its number among one kind."""
    order = list(INFERENCES)

    def place(name: str) -> tuple[int, int]:
        known = inferences(name)
        return order.index(known.kind), known.number or 0

    return tuple(sorted(set(names), key=place))
