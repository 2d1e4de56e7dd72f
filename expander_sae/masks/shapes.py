"""Which shapes a mask family can have. No numpy: a configuration is checked with it while it is planned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from expander_sae.errors import UserError


@dataclass(frozen=True)
class Piece:
    """A matrix that columns are computed with: n columns of d entries on m rows, dense where d = m.

    In a `basis` the columns of the next piece are written; other pieces stand side by side.
    """

    m: int
    n: int
    d: int
    basis: bool = False


def require_cover(m: int, n: int, d: int) -> None:
    """Raise `UserError` where n columns of d entries cannot write each of m rows."""
    if d * n < m:
        raise UserError(f"d·n: found {d}·{n} = {d * n}, expected at least m = {m}, to cover every row")


def require_supports(m: int, n: int, d: int, supports: int) -> None:
    """Raise `UserError` where `dose` cannot have this many distinct supports."""
    if not 1 <= supports <= n:
        raise UserError(f"dose{supports}: expected 1 to n = {n} supports")
    if math.comb(m, d) < supports:
        raise UserError(f"dose{supports}: only {math.comb(m, d)} supports of {d} among {m} rows exist")
    require_cover(m, supports, d)


def girth6_lines(m: int, n: int, d: int) -> tuple[int, int, int]:
    """Of `girth6`: the largest prime q, d ≤ q ≤ m/d; how many places a row beyond d·q takes; whole slopes."""
    require_cover(m, n, d)
    limit = m * (m - 1) // (d * (d - 1)) if d > 1 else n
    q = next((q for q in range(m // d, max(d, 2) - 1, -1) if _is_prime(q)), 0)
    if n > q**2:
        raise UserError(
            f"girth6: n = {n} columns of d = {d} on m = {m} rows; at most m(m−1)/(d(d−1)) = {limit} "
            f"can exist and this construction reaches {q**2}"
        )
    target, whole = min(max(n * d // m, 1), q), max(n // q, 1)
    extras, room = m - d * q, whole * (min(q, n) // target)
    if extras > room:
        found = f"{extras} of {m} rows lie beyond the {d}·{q} of the lines"
        raise UserError(f"girth6: {found}, expected at most {room}")
    return q, target, whole


def components(m: int, n: int, d: int) -> int:
    """How many directions of m entries have as many values as n columns of d; all m where there are more."""
    return min(m, d * n // m)


def both_signs(m: int, n: int, d: int, k: int) -> tuple[int, int, int]:
    """(n, d, k) of `components`, each a feature once with each sign; no code needs more than all of them."""
    count = components(m, n, d)
    return 2 * count, m, min(k, count)


def hybrid_parts(m: int, n: int, d: int, percent: int) -> tuple[int, int]:
    """(dense columns, nonzeros of each other column) of about d·n values, `percent` of them in dense columns.

    First ⌊d(100 − percent)/100⌋ nonzeros, then as many dense columns as the rest has values for: never more
    than d·n values in all, and less than m fewer.

    Raises:
        UserError: one of the two parts would be empty, or leave rows without a sparse column.
    """
    inner = d * (100 - percent) // 100
    core = n * (d - inner) // (m - inner) if d < m else n
    if not 1 <= percent <= 99 or inner < 1 or not 1 <= core <= n - 2:
        found = f"{core} dense columns of {n} and {inner} nonzeros in each other one"
        asked = f"hybrid: found d = {d} and {percent} % in dense columns"
        raise UserError(f"{asked}, so {found}; expected at least 1 of each")
    require_cover(m, n - core, inner)
    return core, inner


def hybrid_pieces(m: int, n: int, d: int, percent: int) -> tuple[Piece, ...]:
    """The dense columns, and the others."""
    core, inner = hybrid_parts(m, n, d, percent)
    return Piece(m, core, m), Piece(m, n - core, inner)


def require_components(m: int, n: int, d: int, rank: int) -> None:
    """Raise `UserError` where columns of d of the first `rank` principal components cannot be."""
    if not d <= rank <= m:
        expected = f"d = {d} to m = {m} principal components"
        raise UserError(f"spectral: found {rank} principal components, expected {expected}")


def spectral_pieces(m: int, n: int, d: int, rank: int) -> tuple[Piece, ...]:
    """The basis, as so many dense columns, and the columns in it."""
    return Piece(m, rank, m, basis=True), Piece(rank, n, d)


def starts(m: int, n: int, d: int) -> int:
    """Distinct supports of runs that are laid end to end: they begin at every multiple of gcd(m, d)."""
    return min(n, m // math.gcd(m, d))


def _is_prime(q: int) -> bool:
    return q > 1 and all(q % divisor for divisor in range(2, math.isqrt(q) + 1))
