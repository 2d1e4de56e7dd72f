"""Mask families: one function each, from a shape and a random stream to rows and degrees.

A function returns rows int32 [n, w], ascending in each column and padded with 0 behind a column's
degree, and degrees int32 [n]. It is called for shapes that the family can have, see masks/supports.py.
"""

from __future__ import annotations

import numpy as np

from expander_sae.errors import UserError
from expander_sae.masks.shapes import girth6_lines
from expander_sae.rng import Integers

Rows = np.ndarray
Support = tuple[np.ndarray, np.ndarray]


def _regular(rows: Rows) -> Support:
    n, d = rows.shape
    return np.sort(rows, axis=1).astype(np.int32), np.full(n, d, dtype=np.int32)


def _subsets(stream: Integers, m: int, n: int, d: int) -> Rows:
    """n uniform d-subsets of range(m), by Floyd's algorithm run on all columns at once.

    Time O(n·d²) with d ≤ m/2; above, the complement is drawn.
    """
    if 2 * d > m:
        left_out = np.zeros((n, m), dtype=bool)
        np.put_along_axis(left_out, _subsets(stream, m, n, m - d), True, axis=1)
        return np.nonzero(~left_out)[1].reshape(n, d)
    chosen = np.empty((n, d), dtype=np.int32)
    for place, last in enumerate(range(m - d, m)):
        drawn = stream.below(last + 1, n).astype(np.int32)
        taken = (chosen[:, :place] == drawn[:, None]).any(axis=1)
        chosen[:, place] = np.where(taken, last, drawn)
    return chosen


def expander(m: int, n: int, d: int, stream: Integers) -> Support:
    """The paper's mask: each column a uniform d-subset, no row left empty.

    A row that nothing drew takes over a uniformly drawn edge of a row that has two or more.
    """
    rows = _subsets(stream, m, n, d)
    degree = np.bincount(rows.ravel(), minlength=m)
    flat = rows.reshape(-1)
    for empty in np.flatnonzero(degree == 0):
        edge = int(stream.below(flat.size, 1)[0])
        while degree[flat[edge]] < 2:
            edge = int(stream.below(flat.size, 1)[0])
        degree[flat[edge]] -= 1
        degree[empty] += 1
        flat[edge] = empty
    return _regular(rows)


def bernoulli(m: int, n: int, d: int, stream: Integers) -> Support:
    """Random and irregular: d·n edges uniform over all m·n cells, every column at least one.

    A column that drew none takes over a uniformly drawn edge of one that has two or more, on a uniform row.
    """
    complement = 2 * d > m
    wanted = (m - d) * n if complement else d * n
    cells = np.empty(0, dtype=np.int64)
    while (missing := wanted - cells.size) > 0:
        size = missing + missing // 4 + 16
        merged = np.concatenate([cells, stream.below(n, size) * m + stream.below(m, size)])
        _, first = np.unique(merged, return_index=True)
        cells = merged[np.sort(first)][:wanted]
    if complement:
        absent = np.zeros(n * m, dtype=bool)
        absent[cells] = True
        cells = np.flatnonzero(~absent)
    column, row = cells // m, cells % m
    degree = np.bincount(column, minlength=n)
    for empty in np.flatnonzero(degree == 0):
        edge = int(stream.below(column.size, 1)[0])
        while degree[column[edge]] < 2:
            edge = int(stream.below(column.size, 1)[0])
        degree[column[edge]] -= 1
        degree[empty] = 1
        column[edge], row[edge] = empty, int(stream.below(m, 1)[0])
    order = np.lexsort((row, column))
    column, row = column[order], row[order]
    starts = np.concatenate([[0], np.cumsum(degree)[:-1]])
    rows = np.zeros((n, int(degree.max())), dtype=np.int32)
    rows[column, np.arange(column.size) - starts[column]] = row
    return rows, degree.astype(np.int32)


def clustered(m: int, n: int, d: int, stream: Integers) -> Support:
    """The published control: ⌊m/d⌋ disjoint blocks of d rows, each column takes one.

    Blocks are used equally often within one. The m mod d rows left over are written by nothing.
    """
    blocks = m // d
    block = stream.permutation(n) % blocks
    return _regular(block[:, None] * d + np.arange(d)[None, :])


def clustered_cover(m: int, n: int, d: int, stream: Integers) -> Support:
    """`clustered` with blocks laid end to end that wrap round: no row left out, degrees equal within one."""
    start = stream.permutation(n) * d
    return _regular((start[:, None] + np.arange(d)[None, :]) % m)


def _balanced(m: int, n: int, d: int, stream: Integers) -> Rows:
    """d rows a column, none twice, row degrees equal within one.

    Row stubs are shuffled and dealt out; a row dealt twice to a column is exchanged with a uniform stub where
    that repeats nothing, until no repeats are left; a deal that stays stuck is made anew. Above d = m/2 the
    complement is made, since exchanges get rare there.
    """
    if 2 * d > m:
        left_out = np.zeros((n, m), dtype=bool)
        np.put_along_axis(left_out, _balanced(m, n, m - d, stream), True, axis=1)
        return np.nonzero(~left_out)[1].reshape(n, d)
    while True:
        stubs = stream.permutation(m)[np.arange(n * d) % m]
        rows = stubs[stream.permutation(n * d)].reshape(n, d)
        for _ in range(1000):
            if not _exchange_repeats(rows, stream):
                return rows


def _exchange_repeats(rows: Rows, stream: Integers) -> int:
    """Offer each repeated row an exchange, in place; returns how many repeats there were.

    All offers are judged at once; of those that touch a column in common the first counts.
    """
    n, d = rows.shape
    order = np.argsort(rows, axis=1, kind="stable")
    ranked = np.take_along_axis(rows, order, axis=1)
    column, rank = np.nonzero(ranked[:, 1:] == ranked[:, :-1])
    place = order[column, rank + 1]
    other, there = np.divmod(stream.below(n * d, column.size), d)
    row, offered = rows[column, place], rows[other, there]
    fits = ~(rows[column] == offered[:, None]).any(axis=1) & ~(rows[other] == row[:, None]).any(axis=1)
    offer = np.flatnonzero(fits)
    first = np.full(n, column.size)
    np.minimum.at(first, column[offer], offer)
    np.minimum.at(first, other[offer], offer)
    taken = offer[(first[column[offer]] == offer) & (first[other[offer]] == offer)]
    rows[column[taken], place[taken]] = offered[taken]
    rows[other[taken], there[taken]] = row[taken]
    return int(column.size)


def right_regular(m: int, n: int, d: int, stream: Integers) -> Support:
    """Random, d rows a column, and row degrees equal within one."""
    return _regular(_balanced(m, n, d, stream))


def dose(m: int, n: int, d: int, stream: Integers, supports: int) -> Support:
    """Support diversity as a dose: `supports` distinct supports, each used n/`supports` times within one.

    They are right-regular among themselves, so row degrees are equal within ⌈n/supports⌉, and exactly equal
    where m divides d·supports and supports divides n. `supports` = n is `right_regular`.
    """
    for _ in range(1000):
        chosen = np.sort(_balanced(m, supports, d, stream), axis=1)
        if len(np.unique(chosen, axis=0)) == supports:
            return _regular(chosen[stream.permutation(n) % supports])
    found = f"no {supports} distinct balanced supports of {d} among {m} rows were found"
    raise UserError(f"dose{supports}: {found}")


def girth6(m: int, n: int, d: int, stream: Integers) -> Support:
    """No two columns share two rows: the bipartite graph has no cycle of length four.

    Columns are lines y = ax + b over GF(q), with d of the x and q prime; two lines meet at most once. All
    lines of a slope are taken before the next slope, which keeps row degrees even. Each of the m − dq rows
    beyond takes one place from lines of one slope, which do not meet at all. Needs a prime q with d ≤ q ≤ m/d
    and q² ≥ n, where counting pairs of rows allows at most m(m−1)/(d(d−1)) columns.
    """
    q, target, whole = girth6_lines(m, n, d)
    slopes, extras = -(-n // q), m - d * q
    x = stream.permutation(q)[:d]
    slope = np.repeat(stream.permutation(q)[:slopes], q)[:n]
    intercept = np.concatenate([stream.permutation(q) for _ in range(slopes)])[:n]
    rows = np.arange(d)[None, :] * q + (slope[:, None] * x[None, :] + intercept[:, None]) % q
    for extra in range(extras):
        # From places in turn, so that the rows of one x do not pay for all.
        start = (extra % whole) * q + (extra // whole) * target
        parallel = np.arange(start, start + target)
        rows[parallel, (intercept[parallel] + extra) % d] = d * q + extra
    return _regular(stream.permutation(m)[rows])


def min_overlap(m: int, n: int, d: int, stream: Integers) -> Support:
    """Few pairs of columns that share two or more rows, where `girth6` is impossible.

    Columns are built one after another, a row at a time: among the rows of least degree (within one), the one
    that repeats fewest pairs of rows already used together. This is greedy descent on the sum of
    C(|overlap|, 2) over pairs of columns. Time O(n·d·m), memory O(m² + d·n).
    """
    together = np.zeros((m, m), dtype=np.int32)
    degree = np.zeros(m, dtype=np.int64)
    rows = np.empty((n, d), dtype=np.int64)
    for column in range(n):
        order = stream.permutation(m)
        # The d rows must fit under a common degree limit, or the balance is lost.
        ceiling = np.partition(degree, d - 1)[d - 1] + 1
        cost = np.zeros(m, dtype=np.int64)
        cost[degree >= ceiling] = 1 << 40
        cost[degree < ceiling - 1] = -1 << 40
        for place in range(d):
            row = order[cost[order].argmin()]
            rows[column, place] = row
            cost += together[row]
            cost[row] = 1 << 50
        degree[rows[column]] += 1
        together[np.ix_(rows[column], rows[column])] += 1
    return _regular(rows)
