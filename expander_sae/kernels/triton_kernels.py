"""The Triton programs of `triton_gpu.py`, and a scan of `triton_omp.py`. Large offsets are int64."""

# ruff: noqa: ANN001, ANN201
# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False
from __future__ import annotations

import triton
import triton.language as tl

from expander_sae.kernels.triton_topk import ordered


@triton.jit
def score_kernel(
    values, rows, panels, bias, scores, maxima, n, m, w, batch, blocks, pieces,
    STORE: tl.constexpr, MAXIMA: tl.constexpr, HAS_BIAS: tl.constexpr, ACCUMULATOR: tl.constexpr,
    LOWEST: tl.constexpr, BLOCK: tl.constexpr, FEATURES: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Scores [B, n] without bias, and the largest key of each block of features with it.

    values, rows [w, n]; panels [⌈B / SAMPLES⌉, m, SAMPLES], so that one row index fetches neighbouring
    samples. A program keeps to one panel for `pieces` tiles of features, and the panel to a near cache.
    """
    panel = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, SAMPLES)
    sample = panel * SAMPLES + lane
    panels += panel * m * SAMPLES
    for piece in range(pieces):
        tile = tl.program_id(0) * pieces + piece
        feature = tile * FEATURES + tl.arange(0, FEATURES)
        present = feature < n
        total = tl.zeros([FEATURES, SAMPLES], dtype=ACCUMULATOR)
        value_at = values + feature
        row_at = rows + feature
        for _ in range(w):
            row = tl.load(row_at, mask=present, other=0).to(tl.int32)
            weight = tl.load(value_at, mask=present, other=0).to(ACCUMULATOR)
            fetched = tl.load(panels + row[:, None] * SAMPLES + lane[None, :])
            total += weight[:, None] * fetched.to(ACCUMULATOR)
            value_at += n
            row_at += n
        inside = (sample < batch)[None, :]
        if STORE:
            tl.store(scores + sample[None, :] * n + feature[:, None], total, mask=present[:, None] & inside)
        if MAXIMA:
            if HAS_BIAS:
                total += tl.load(bias + feature, mask=present, other=0).to(ACCUMULATOR)[:, None]
            keys = tl.where(present[:, None], ordered(total), LOWEST)
            keys = tl.max(tl.reshape(keys, (FEATURES // BLOCK, BLOCK, SAMPLES)), axis=1)
            block = tile * (FEATURES // BLOCK) + tl.arange(0, FEATURES // BLOCK)
            at = maxima + sample[None, :] * blocks + block[:, None]
            tl.store(at, keys, mask=(block < blocks)[:, None] & inside)


@triton.jit
def scan_kernel(
    values, rows, panels, going, best, column, n, m, w, batch, pieces,
    ABSOLUTE: tl.constexpr, ACCUMULATOR: tl.constexpr, FEATURES: tl.constexpr, SAMPLES: tl.constexpr,
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
    top = tl.full([SAMPLES], float("-inf"), ACCUMULATOR)
    holder = tl.zeros([SAMPLES], dtype=tl.int32)
    for piece in range(tl.where(needed, pieces, 0)):
        feature = (first + piece) * FEATURES + slot
        present = feature < n
        total = tl.zeros([FEATURES, SAMPLES], dtype=ACCUMULATOR)
        value_at = values + feature
        row_at = rows + feature
        for _ in range(w):
            row = tl.load(row_at, mask=present, other=0).to(tl.int32)
            weight = tl.load(value_at, mask=present, other=0).to(ACCUMULATOR)
            total += weight[:, None] * tl.load(panels + row[:, None] * SAMPLES + lane[None, :])
            value_at += n
            row_at += n
        if ABSOLUTE:
            total = tl.abs(total)
        total = tl.where(present[:, None], total, float("-inf"))
        peak = tl.max(total, axis=0)
        lowest = tl.min(tl.where(total == peak[None, :], feature[:, None], n), axis=0)
        better = peak > top
        top = tl.where(better, peak, top)
        holder = tl.where(better, lowest, holder)
    at = tl.program_id(0).to(tl.int64) * batch + sample
    tl.store(best + at, top, mask=inside)
    tl.store(column + at, holder, mask=inside)


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
