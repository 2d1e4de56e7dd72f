"""The Triton programs of `triton_gpu.py`, and a scan of `triton_omp.py`. Large offsets are int64."""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False
from __future__ import annotations

import triton
import triton.language as tl

from expander_sae.kernels.triton_topk import ordered


@triton.jit
def _entry(value_at, row_at, panels, present, lane, ACCUMULATOR: tl.constexpr, SAMPLES: tl.constexpr):
    """What one entry of each column adds to its scores on a panel, [FEATURES, SAMPLES]."""
    row = tl.load(row_at, mask=present, other=0).to(tl.int32)
    weight = tl.load(value_at, mask=present, other=0).to(ACCUMULATOR)
    fetched = tl.load(panels + row[:, None] * SAMPLES + lane[None, :])
    return weight[:, None] * fetched.to(ACCUMULATOR)


@triton.jit
def _scores(
    values, rows, panels, at, present, stride, lane, w,
    ACCUMULATOR: tl.constexpr, SAMPLES: tl.constexpr, FEATURES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """[FEATURES, SAMPLES]: the columns whose entries are `stride` apart from `at` on, on one panel."""
    total = tl.zeros([FEATURES, SAMPLES], dtype=ACCUMULATOR)
    value_at = values + at
    row_at = rows + at
    if WIDTH > 0:
        # Without a loop: all loads of rows are under way before the first is waited for.
        for _ in tl.static_range(WIDTH):
            total += _entry(value_at, row_at, panels, present, lane, ACCUMULATOR, SAMPLES)
            value_at += stride
            row_at += stride
    else:
        for _ in range(w):
            total += _entry(value_at, row_at, panels, present, lane, ACCUMULATOR, SAMPLES)
            value_at += stride
            row_at += stride
    return total


@triton.jit
def score_kernel(
    values, rows, panels, scores, n, m, w, batch, pieces,
    ACCUMULATOR: tl.constexpr, FEATURES: tl.constexpr, SAMPLES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Scores [B, n]. values, rows [w, n]; panels [⌈B / SAMPLES⌉, m, SAMPLES], so that one row index fetches
    neighbouring samples. A program keeps to one panel for `pieces` tiles of features."""
    panel = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, SAMPLES)
    sample = panel * SAMPLES + lane
    panels += panel * m * SAMPLES
    for piece in range(pieces):
        feature = (tl.program_id(0) * pieces + piece) * FEATURES + tl.arange(0, FEATURES)
        present = feature < n
        total = _scores(
            values, rows, panels, feature, present, n, lane, w, ACCUMULATOR, SAMPLES, FEATURES, WIDTH
        )
        inside = present[:, None] & (sample < batch)[None, :]
        tl.store(scores + sample[None, :] * n + feature[:, None], total, mask=inside)


@triton.jit
def peak_kernel(
    values, rows, panels, bias, maxima, n, m, w, batch, blocks, pieces,
    HAS_BIAS: tl.constexpr, RAGGED: tl.constexpr, ACCUMULATOR: tl.constexpr, BLOCK: tl.constexpr,
    FEATURES: tl.constexpr, SAMPLES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """maxima [B, blocks]: the key of the largest score of each block of BLOCK features, bias included.

    values, rows [w, BLOCK · blocks], block after block the first features, then the second ones, and so on:
    a thread has a block for itself, takes its features in turn, and asks no other thread. panels as in
    `score_kernel`. FEATURES: blocks at a time. RAGGED: the last block lacks features.
    """
    panel = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, SAMPLES)
    sample = panel * SAMPLES + lane
    panels += panel * m * SAMPLES
    for piece in range(pieces):
        block = (tl.program_id(0) * pieces + piece) * FEATURES + tl.arange(0, FEATURES)
        present = block < blocks
        best = tl.full([FEATURES, SAMPLES], float("-inf"), ACCUMULATOR)
        for slot in range(BLOCK):
            total = _scores(
                values, rows, panels, slot * blocks + block, present, blocks * BLOCK, lane, w,
                ACCUMULATOR, SAMPLES, FEATURES, WIDTH,
            )  # fmt: skip
            feature = block * BLOCK + slot
            if HAS_BIAS:
                total += tl.load(bias + feature, mask=feature < n, other=0).to(ACCUMULATOR)[:, None]
            if RAGGED:
                total = tl.where((feature < n)[:, None], total, float("-inf"))
            best = tl.maximum(best, total, propagate_nan=tl.PropagateNan.ALL)
        inside = present[:, None] & (sample < batch)[None, :]
        tl.store(maxima + sample[None, :] * blocks + block[:, None], ordered(best), mask=inside)


@triton.jit
def scan_kernel(
    values, rows, panels, going, best, column, n, m, w, batch, pieces,
    ABSOLUTE: tl.constexpr, ACCUMULATOR: tl.constexpr, FEATURES: tl.constexpr, SAMPLES: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """best, column [programs, B]: the largest score of `pieces` tiles of features, the lowest such column.

    values, rows [w, n]; panels [⌈B / SAMPLES⌉, m, SAMPLES]. Held columns are among them: they are orthogonal
    to the residual, so that they are the best ones only of what is left when a sample is all but done.
    Nothing is worked out for panels of which no sample is going.
    """
    panel = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, SAMPLES)
    sample = panel * SAMPLES + lane
    inside = sample < batch
    slot = tl.arange(0, FEATURES)
    first = tl.program_id(0) * pieces
    needed = tl.max(tl.load(going + sample, mask=inside, other=0), axis=0) > 0
    panels += panel * m * SAMPLES
    # Each thread keeps what is best of its own, and all of them are compared once, at the end.
    top = tl.full([FEATURES, SAMPLES], float("-inf"), ACCUMULATOR)
    holder = tl.zeros([FEATURES, SAMPLES], dtype=tl.int32)
    for piece in range(tl.where(needed, pieces, 0)):
        feature = (first + piece) * FEATURES + slot
        present = feature < n
        total = _scores(
            values, rows, panels, feature, present, n, lane, w, ACCUMULATOR, SAMPLES, FEATURES, WIDTH
        )
        if ABSOLUTE:
            total = tl.abs(total)
        total = tl.where(present[:, None], total, float("-inf"))
        better = total > top
        top = tl.where(better, total, top)
        holder = tl.where(better, feature[:, None], holder)
    peak = tl.max(top, axis=0)
    lowest = tl.min(tl.where(top == peak[None, :], holder, n), axis=0)
    at = tl.program_id(0).to(tl.int64) * batch + sample
    tl.store(best + at, peak, mask=inside)
    tl.store(column + at, lowest, mask=inside)


@triton.jit
def correlate_at_kernel(
    values, rows, residual, index, out, m, w, k,
    ACCUMULATOR: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """out[b, s] = ⟨w_j, residual[b]⟩ for j = index[b, s]; values, rows [n, w]."""
    b = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    column = tl.load(index + b * k + place, mask=place < k, other=-1)
    total = tl.zeros([PLACES], dtype=ACCUMULATOR)
    for start in range(0, w, WIDTH):
        entry = start + tl.arange(0, WIDTH)
        held = (column >= 0)[:, None] & (entry < w)[None, :]
        at = column[:, None] * w + entry[None, :]
        row = tl.load(rows + at, mask=held, other=0)
        weight = tl.load(values + at, mask=held, other=0).to(ACCUMULATOR)
        x = tl.load(residual + b * m + row, mask=held, other=0).to(ACCUMULATOR)
        total += tl.sum(weight * x, axis=1)
    tl.store(out + b * k + place, total, mask=place < k)


@triton.jit
def synthesize_kernel(
    values, rows, index, value, out, m, w, k,
    ACCUMULATOR: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """out[b] += Σ_s value[b, s] w_j for j = index[b, s], by atomics."""
    b = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    column = tl.load(index + b * k + place, mask=place < k, other=-1)
    x = tl.load(value + b * k + place, mask=column >= 0, other=0).to(ACCUMULATOR)
    for start in range(0, w, WIDTH):
        entry = start + tl.arange(0, WIDTH)
        held = (column >= 0)[:, None] & (entry < w)[None, :]
        at = column[:, None] * w + entry[None, :]
        row = tl.load(rows + at, mask=held, other=0)
        weight = tl.load(values + at, mask=held, other=0).to(ACCUMULATOR)
        tl.atomic_add(out + b * m + row, x[:, None] * weight, mask=held, sem="relaxed")


@triton.jit
def miss_kernel(rebuilt, offset, h, error, m, batch, count, ACCUMULATOR: tl.constexpr, SIZE: tl.constexpr):
    """rebuilt += offset [m] and error = 2 / B · (rebuilt − h), of `count` numbers each [B, m]."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < count
    x = tl.load(rebuilt + at, mask=inside, other=0).to(ACCUMULATOR)
    x += tl.load(offset + at % m, mask=inside, other=0).to(ACCUMULATOR)
    tl.store(rebuilt + at, x, mask=inside)
    missed = x - tl.load(h + at, mask=inside, other=0).to(ACCUMULATOR)
    tl.store(error + at, missed * (tl.full([], 2, ACCUMULATOR) / batch), mask=inside)


@triton.jit
def outer_kernel(
    rows, index, first, first_from, second, second_from, out, m, w, k,
    TWO: tl.constexpr, ACCUMULATOR: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """out[j] += first[b, s] · first_from[b, rows[j]] (+ second …) for j = index[b, s], by atomics."""
    b = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    column = tl.load(index + b * k + place, mask=place < k, other=-1)
    x = tl.load(first + b * k + place, mask=column >= 0, other=0).to(ACCUMULATOR)
    y = x
    if TWO:
        y = tl.load(second + b * k + place, mask=column >= 0, other=0).to(ACCUMULATOR)
    for start in range(0, w, WIDTH):
        entry = start + tl.arange(0, WIDTH)
        held = (column >= 0)[:, None] & (entry < w)[None, :]
        at = column[:, None] * w + entry[None, :]
        row = tl.load(rows + at, mask=held, other=0)
        piece = x[:, None] * tl.load(first_from + b * m + row, mask=held, other=0).to(ACCUMULATOR)
        if TWO:
            piece += y[:, None] * tl.load(second_from + b * m + row, mask=held, other=0).to(ACCUMULATOR)
        tl.atomic_add(out + at, piece, mask=held, sem="relaxed")


@triton.jit
def grouped_outer_kernel(
    order, starts, rows, first, first_from, second, second_from, out, m, w, k,
    TWO: tl.constexpr, ACCUMULATOR: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The sums of `outer_kernel`, one feature a program: in a fixed order, without atomics.

    Args:
        order: places b · k + s in order of feature; those of feature j are starts[j] to starts[j + 1].
    """
    column = tl.program_id(0).to(tl.int64)
    entry = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    row = tl.load(rows + column * w + entry, mask=entry < w, other=0)
    stop = tl.load(starts + column + 1)
    begin = tl.load(starts + column)
    total = tl.zeros([WIDTH], dtype=ACCUMULATOR)
    for number in range((stop - begin + PLACES - 1) // PLACES):
        at = begin + number * PLACES + tl.arange(0, PLACES)
        place = tl.load(order + at, mask=at < stop, other=0)
        held = (at < stop)[:, None] & (entry < w)[None, :]
        source = (place // k)[:, None] * m + row[None, :]
        x = tl.load(first + place, mask=at < stop, other=0).to(ACCUMULATOR)
        piece = x[:, None] * tl.load(first_from + source, mask=held, other=0).to(ACCUMULATOR)
        if TWO:
            y = tl.load(second + place, mask=at < stop, other=0).to(ACCUMULATOR)
            piece += y[:, None] * tl.load(second_from + source, mask=held, other=0).to(ACCUMULATOR)
        total += tl.sum(piece, axis=0)
    tl.store(out + column * w + entry, total, mask=entry < w)
