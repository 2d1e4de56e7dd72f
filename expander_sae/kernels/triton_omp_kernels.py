"""What a sample does in a pick of `triton_omp.py`, in Triton. Offsets that can pass 2³¹ are int64.

`tried` int64 [⌈B / 64⌉, n] has a bit for each sample and column: whether the sample holds the column, or has
passed it over. Each sample is written by one program, so that sums do not depend on the order of programs.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False
from __future__ import annotations

import triton
import triton.language as tl

AT_ONCE = tl.constexpr(8)
"""Held columns that are read at a time where they are subtracted."""

GIVEN, SCANNED, STORED = 0, 1, 2
"""Where `take_kernel` finds columns: in `column` alone, in the results of `scan_kernel`, in stored scores."""


@triton.jit
def _first_of_best(score, name, n):
    """(largest score, the lowest name that has it)."""
    top = tl.max(score, axis=0)
    return top, tl.min(tl.where(score == top, name, n), axis=0)


@triton.jit
def _best_untried(
    values, rows, residual, scores, tried, bit, n, w,
    FIND: tl.constexpr, ABSOLUTE: tl.constexpr, ACCUMULATOR: tl.constexpr,
    LANES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """(score, column) of one sample, from its scores or its residual; values, rows [n, w]."""
    lane = tl.arange(0, CHUNK)
    top = tl.full([CHUNK], float("-inf"), ACCUMULATOR)
    holder = tl.zeros([CHUNK], dtype=tl.int32)
    for start in range(0, n, CHUNK):
        feature = start + lane
        present = feature < n
        if FIND == 2:
            total = tl.load(scores + feature, mask=present, other=0).to(ACCUMULATOR)
        else:
            total = tl.zeros([CHUNK], dtype=ACCUMULATOR)
            at = feature.to(tl.int64) * w
            for t in range(w):
                row = tl.load(rows + at + t, mask=present, other=0).to(tl.int64)
                weight = tl.load(values + at + t, mask=present, other=0)
                total += weight * tl.load(residual + row * LANES)
        if ABSOLUTE:
            total = tl.abs(total)
        marks = tl.load(tried + feature, mask=present, other=-1)
        better = (total > top) & (((marks >> bit) & 1) == 0)
        top = tl.where(better, total, top)
        holder = tl.where(better, feature, holder)
    return _first_of_best(top, holder, n)


@triton.jit
def _overlaps(
    values, rows, written, j, held, present, w,
    DENSE: tl.constexpr, ACCUMULATOR: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """⟨w_i, w_j⟩ for the held columns i [PLACES]. written: zeros [m], also on return."""
    total = tl.zeros([PLACES], dtype=ACCUMULATOR)
    lane = tl.arange(0, WIDTH)
    new, old = j.to(tl.int64) * w, held.to(tl.int64)[:, None] * w
    if not DENSE:
        for start in range(0, w, WIDTH):
            entry = start + lane
            row = tl.load(rows + new + entry, mask=entry < w, other=0)
            weight = tl.load(values + new + entry, mask=entry < w, other=0)
            tl.atomic_add(written + row, weight, mask=entry < w, sem="relaxed")
        tl.debug_barrier()
    for start in range(0, w, WIDTH):
        entry = start + lane
        inside = present[:, None] & (entry < w)[None, :]
        at = old + entry[None, :]
        weight = tl.load(values + at, mask=inside, other=0)
        if DENSE:
            other = tl.load(values + new + entry, mask=entry < w, other=0)[None, :]
        else:
            other = tl.load(written + tl.load(rows + at, mask=inside, other=0), mask=inside, other=0)
        total += tl.sum(weight * other, axis=1)
    if not DENSE:
        tl.debug_barrier()
        for start in range(0, w, WIDTH):
            entry = start + lane
            row = tl.load(rows + new + entry, mask=entry < w, other=0)
            tl.store(written + row, tl.zeros([WIDTH], dtype=ACCUMULATOR), mask=entry < w)
        tl.debug_barrier()
    return total


@triton.jit
def _new_row(
    inverse, overlap, held, k,
    ACCUMULATOR: tl.constexpr, PLACES: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """(−uᵀL⁻¹ [PLACES], 1 − ‖u‖²) for u = L⁻¹·overlap; L⁻¹ is the first `held` rows of inverse [k, k]."""
    place = tl.arange(0, PLACES)
    row = tl.zeros([PLACES], dtype=ACCUMULATOR)
    used = tl.zeros([LINES], dtype=ACCUMULATOR)
    for start in range(0, held, LINES):
        line = start + tl.arange(0, LINES)
        inside = (line < held)[:, None] & (place[None, :] <= line[:, None])
        tile = tl.load(inverse + line[:, None] * k + place[None, :], mask=inside, other=0)
        u = tl.sum(tile * overlap[None, :], axis=1)
        row -= tl.sum(tile * u[:, None], axis=0)
        used += u * u
    return row, 1 - tl.sum(used, axis=0)


@triton.jit
def _slope(
    values, rows, residual, j, w,
    DENSE: tl.constexpr, ACCUMULATOR: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """⟨w_j, r⟩."""
    total = tl.zeros([WIDTH], dtype=ACCUMULATOR)
    new = j.to(tl.int64) * w
    for start in range(0, w, WIDTH):
        entry = start + tl.arange(0, WIDTH)
        row = entry if DENSE else tl.load(rows + new + entry, mask=entry < w, other=0)
        weight = tl.load(values + new + entry, mask=entry < w, other=0)
        total += weight * tl.load(residual + row.to(tl.int64) * LANES, mask=entry < w, other=0)
    return tl.sum(total, axis=0)


@triton.jit
def _subtract(
    values, rows, residual, column, move, count, m, w,
    DENSE: tl.constexpr, ACCUMULATOR: tl.constexpr, LANES: tl.constexpr,
    PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """residual −= Σ_i move[i] w_i over the first `count` columns, read from column and move [k].

    Sparse columns are read AT_ONCE at a time: waiting for each alone took most of a pick's time.
    """
    lane = tl.arange(0, WIDTH)
    if DENSE:
        place = tl.arange(0, PLACES)
        present = place < count
        held = tl.load(column + place, mask=present, other=0)
        x = tl.load(move + place, mask=present, other=0)
        for start in range(0, m, WIDTH):
            entry = start + lane
            inside = present[:, None] & (entry < m)[None, :]
            weight = tl.load(values + held[:, None] * w + entry[None, :], mask=inside, other=0)
            left = tl.load(residual + entry, mask=entry < m, other=0)
            left -= tl.sum(x[:, None] * weight, axis=0)
            tl.store(residual + entry, left, mask=entry < m)
    else:
        for begin in range(0, count, AT_ONCE):
            turn = tl.arange(0, AT_ONCE)
            present = begin + turn < count
            at = tl.load(column + begin + turn, mask=present, other=0) * w
            x = tl.load(move + begin + turn, mask=present, other=0)
            for start in range(0, w, WIDTH):
                entry = start + lane
                inside = present[:, None] & (entry < w)[None, :]
                where = at[:, None] + entry[None, :]
                row = tl.load(rows + where, mask=inside, other=0).to(tl.int64)
                weight = tl.load(values + where, mask=inside, other=0)
                # Columns share rows: one after the other they are added in one order always.
                for i in tl.static_range(AT_ONCE):
                    own = inside & (turn == i)[:, None]
                    tl.atomic_add(residual + row * LANES, -x[:, None] * weight, mask=own, sem="relaxed")
                    tl.debug_barrier()


@triton.jit
def _first_choice(
    values, rows, residual, scores, best, column, tried, bit, going, bound, n, w, batch, parts,
    FIND: tl.constexpr, ABSOLUTE: tl.constexpr, ACCUMULATOR: tl.constexpr,
    LANES: tl.constexpr, PARTS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """(score, column) of the best column; best, column [parts] at a distance of `batch`."""
    if FIND == 2:
        top, j = _best_untried(
            values, rows, residual, scores, tried, bit, tl.where(going, n, 0), w,
            FIND, ABSOLUTE, ACCUMULATOR, LANES, CHUNK,
        )  # fmt: skip
    else:
        part = tl.arange(0, PARTS)
        score = tl.load(best + part * batch, mask=part < parts, other=float("-inf"))
        top, j = _first_of_best(score, tl.load(column + part * batch, mask=part < parts, other=n), n)
    if FIND == 1:
        known = (tl.load(tried + j, mask=j < n, other=0) >> bit) & 1
        if going & (known > 0) & (top > bound):
            top, j = _best_untried(
                values, rows, residual, scores, tried, bit, n, w,
                FIND, ABSOLUTE, ACCUMULATOR, LANES, CHUNK,
            )  # fmt: skip
    return top, j


@triton.jit
def _independent(
    values, rows, residual, scores, tried, bit, written, inverse, columns, top, j, wanted, bound, count,
    n, w, k, dependence,
    FIND: tl.constexpr, DENSE: tl.constexpr, ABSOLUTE: tl.constexpr, ACCUMULATOR: tl.constexpr,
    LANES: tl.constexpr, PLACES: tl.constexpr, LINES: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """(score, column, whether there is one, its row of L⁻¹ without the scale, its pivot).

    The column j, or the best one that does not depend on those held; all that are looked at become tried.
    """
    present = tl.arange(0, PLACES) < count
    row = tl.zeros([PLACES], dtype=ACCUMULATOR)
    pivot = tl.sum(row, axis=0)
    searching = wanted
    while searching:
        overlap = _overlaps(values, rows, written, j, columns, present, w, DENSE, ACCUMULATOR, PLACES, WIDTH)
        row, pivot = _new_row(inverse, overlap, count, k, ACCUMULATOR, PLACES, LINES)
        searching = (pivot > dependence) == 0
        if FIND == 0:
            wanted = pivot > dependence
            searching = wanted != wanted
        else:
            tl.atomic_or(tried + j, tl.full([], 1, tl.int64) << bit, sem="relaxed")
            tl.debug_barrier()
            if searching:
                top, j = _best_untried(
                    values, rows, residual, scores, tried, bit, n, w,
                    FIND, ABSOLUTE, ACCUMULATOR, LANES, CHUNK,
                )  # fmt: skip
                wanted = top > bound
                searching = wanted
    return top, j, wanted, row, pivot


@triton.jit
def _hold(
    values, rows, residual, inverse, index, value, move, j, count, row, pivot, m, w, k,
    DENSE: tl.constexpr, ACCUMULATOR: tl.constexpr, LANES: tl.constexpr,
    PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Put column j into place `count`: factors, code and residual."""
    place = tl.arange(0, PLACES)
    inside = place <= count
    scale = 1 / tl.sqrt(pivot)
    slope = _slope(values, rows, residual, j, w, DENSE, ACCUMULATOR, LANES, WIDTH)
    row = tl.where(place == count, 1, row) * scale
    change = slope * scale * row
    tl.store(inverse + count.to(tl.int64) * k + place, row, mask=inside)
    tl.store(move + place, change, mask=inside)
    tl.store(value + place, tl.load(value + place, mask=inside, other=0) + change, mask=inside)
    tl.store(index + count, j.to(tl.int64))
    tl.debug_barrier()
    _subtract(values, rows, residual, index, move, count + 1, m, w, DENSE, ACCUMULATOR, LANES, PLACES, WIDTH)


@triton.jit
def take_kernel(
    values, rows, residual, scores, best, column, tried, going, held, limit, written, move, inverse, index,
    value, n, m, w, k, batch, parts, first, dependence,
    FIND: tl.constexpr, DENSE: tl.constexpr, ABSOLUTE: tl.constexpr, ACCUMULATOR: tl.constexpr,
    LANES: tl.constexpr, PARTS: tl.constexpr, PLACES: tl.constexpr, LINES: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Give each going sample, one a program, its best column that does not depend on those it holds.

    values, rows [n, w], unit columns (DENSE: rows are 0 … m − 1); residual [⌈B / LANES⌉, m, LANES] and the
    code index, value [B, k] are brought up to date, with held [B] and the factors inverse [B, k, k].

    FIND: where columns come from. GIVEN: one a sample, column [B] with score best [B], which is passed over
    if it depends on those held; the sample stops at a score under its limit if `first`, its round's best.
    SCANNED: the best of best, column [parts, B], then from the residual. STORED: from scores [B, n].
    """
    b = tl.program_id(0).to(tl.int64)
    count = tl.load(held + b)
    bound = tl.load(limit + b)
    bit = b % 64
    tried += b // 64 * n
    residual += b // LANES * m * LANES + b % LANES
    scores += b * n
    inverse += b * k * k
    index += b * k
    open_ = tl.load(going + b) > 0
    top, j = _first_choice(
        values, rows, residual, scores, best + b, column + b, tried, bit, open_, bound, n, w, batch, parts,
        FIND, ABSOLUTE, ACCUMULATOR, LANES, PARTS, CHUNK,
    )  # fmt: skip
    wanted = open_ & (top > bound) & (count < k)
    place = tl.arange(0, PLACES)
    columns = tl.load(index + place, mask=place < count, other=0)
    top, j, wanted, row, pivot = _independent(
        values, rows, residual, scores, tried, bit, written + b * m, inverse, columns, top, j, wanted, bound,
        count, n, w, k, dependence,
        FIND, DENSE, ABSOLUTE, ACCUMULATOR, LANES, PLACES, LINES, WIDTH, CHUNK,
    )  # fmt: skip
    if wanted:
        _hold(
            values, rows, residual, inverse, index, value + b * k, move + b * k, j, count, row, pivot,
            m, w, k, DENSE, ACCUMULATOR, LANES, PLACES, WIDTH,
        )  # fmt: skip
        count += 1
        tl.store(held + b, count)
    tl.store(going + b, (open_ & ((top > bound) | (first == 0)) & (count < k)).to(tl.int32))
