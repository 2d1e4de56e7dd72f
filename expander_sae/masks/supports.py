"""The one table of supports: which rows the columns of a decoder may write, and all that hangs on that.

A line of `SUPPORTS` is all that a new support needs: configurations, planning, training, files, figures and
tables ask this table. It names code as ``module:name`` and imports it when it is used, so that planning needs
neither numpy nor torch.
"""

from __future__ import annotations

import re
from dataclasses import replace

from expander_sae.errors import UserError
from expander_sae.masks import shapes
from expander_sae.masks.support import Support

DENSE = "expander_sae.model.dense:Dense"
_MODEL = "expander_sae.model."
_FAMILIES = "expander_sae.masks.families:"
_FREE = ("warm_tied", "independent", "own_support", "full")

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
        Support("hybrid", decoder=_MODEL + "hybrid:Hybrid", counts="percent of its values in dense columns",
                usual=50, require=shapes.hybrid_parts, pieces=shapes.hybrid_pieces, encoders=("tied",),
                order=17, look=("#1B9E77", ">", "-.", 1.0, 5.0)),
        Support("spectral", decoder=_MODEL + "spectral:Spectral", counts="number of principal components",
                usual=256, require=shapes.require_components, prepare=_MODEL + "spectral:fit",
                pieces=shapes.spectral_pieces, encoders=("tied",), order=18,
                look=("#7570B3", "<", "-.", 1.0, 5.4)),
        Support("grown", decoder=_MODEL + "grown:Grown", require=shapes.require_cover, encoders=("tied",),
                order=19, look=("#E6AB02", "v", "-.", 1.0, 5.0)),
    )
}  # fmt: skip
"""Name → support, in the order in which messages list them."""

BUILT_IN = frozenset(SUPPORTS)

IMPORTED = "imported"
"""What a configuration calls an autoencoder from elsewhere; each has a support of its own, see `imported`."""

_IMPORTED = re.compile(IMPORTED + r"-(?P<label>[A-Za-z0-9][A-Za-z0-9._-]*)-[0-9a-f]{12}")
"""Its name has hyphens, which `register` refuses."""


def register(new: Support) -> None:
    """Add a support, as a line of `SUPPORTS` does; `UserError`: it is taken, or no path can hold it."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", new.name) or find(new.name):
        expected = "a new name of letters, digits and underscores"
        raise UserError(f"support: found {new.name!r}, expected {expected}")
    SUPPORTS[new.name] = new


def find(name: str) -> Support | None:
    """The support of this name, ``dose64`` being `dose` with the number 64; None where there is none."""
    if found := _IMPORTED.fullmatch(name):
        label = found["label"]
        return Support(name, decoder="", imported=True, seeded=False, order=20, frontier=(label, label))
    known = SUPPORTS.get(name)
    if known is not None and known.counts:
        return None if known.usual is None else replace(known, number=known.usual)
    if known is not None:
        return known
    kind = name.rstrip("0123456789")
    known, digits = SUPPORTS.get(kind), name[len(kind) :]
    if known is None or not known.counts or not digits or digits[0] == "0" or int(digits) == known.usual:
        return None
    return replace(known, name=name, number=int(digits))


def imported(label: str, sha256: str) -> str:
    """The name of the support of an autoencoder from elsewhere: its label, and a part of its files' checksum.

    Files that hold another autoencoder are then another support, as a run's folder says it.
    """
    return f"{IMPORTED}-{label}-{sha256[:12]}"


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
