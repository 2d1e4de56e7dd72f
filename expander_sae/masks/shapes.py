"""Which shapes a mask family can have. No numpy: a configuration is checked with it while it is planned."""

from __future__ import annotations

import math

from expander_sae.errors import UserError


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


def starts(m: int, n: int, d: int) -> int:
    """Distinct supports of runs that are laid end to end: they begin at every multiple of gcd(m, d)."""
    return min(n, m // math.gcd(m, d))


def _is_prime(q: int) -> bool:
    return q > 1 and all(q % divisor for divisor in range(2, math.isqrt(q) + 1))
