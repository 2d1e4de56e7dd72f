"""Compiled scoring and selection. Each loop writes the part [start, stop) of its outputs."""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import njit

from expander_sae.kernels.numba_vectors import lanes_reaching, lowest_bit, score_block
from expander_sae.machine.piece_sizes import LANES

_compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
_exact = njit(cache=True, nogil=True)

_BLOCKS_PER_K = 4
_BISECTIONS = 10


@_compiled
def load_panel(residual, first, panel):
    """panel[:, l] = residual[first + l], zeros in lanes past the batch. Whole cache lines are read."""
    batch, m = residual.shape
    present = min(LANES, batch - first)
    for row in range(0, m, 16):
        end = min(row + 16, m)
        for lane in range(present):
            for r in range(row, end):
                panel[r, lane] = residual[first + lane, r]
        for r in range(row, end):
            for lane in range(present, LANES):
                panel[r, lane] = 0


@_exact
def kth_largest(a, size, k):
    """k-th largest of a[:size], which is reordered and holds no NaN (Hoare's selection)."""
    low, high, target = 0, size - 1, k - 1
    while low < high:
        pivot = a[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while a[i] > pivot:
                i += 1
            while a[j] < pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return a[target]


@_exact
def select(score, name, size, k, work, index, value):
    """The k largest of score[:size], whose names ascend, into index and value; NaN first, then low names."""
    numbers = 0
    for i in range(size):
        if not np.isnan(score[i]):
            work[numbers] = score[i]
            numbers += 1
    missing = size - numbers
    filled = 0
    wanted = k - min(missing, k)
    limit = kth_largest(work, numbers, wanted) if wanted > 0 else np.inf
    above = 0
    for i in range(numbers):
        above += work[i] > limit
    equals = wanted - above
    nans = k - wanted
    for i in range(size):
        s = score[i]
        if np.isnan(s):
            take = nans > 0
            nans -= take
        elif wanted == 0:
            take = False
        elif s == limit:
            take = equals > 0
            equals -= take
        else:
            take = s > limit
        if take:
            index[filled] = name[i]
            value[filled] = s
            filled += 1


@_exact
def _thresholds(maxima, blocks, k, bounds, reached, work, threshold):
    """Numbers that at least k, and not many more, of each lane's block maxima reach.

    All lanes are bisected together. Where that does not come close (NaN, infinities, outliers,
    many equal maxima), a lane's k-th largest is selected. bounds [3, 64], reached int32 [64]: scratch.
    """
    low, high, middle = bounds[0], bounds[1], bounds[2]
    for lane in range(LANES):
        low[lane] = maxima[0, lane]
        high[lane] = maxima[0, lane]
    for block in range(1, blocks):
        for lane in range(LANES):
            s = maxima[block, lane]
            low[lane] = s if s < low[lane] else low[lane]
            high[lane] = s if s > high[lane] else high[lane]
    for _ in range(_BISECTIONS):
        for lane in range(LANES):
            middle[lane] = (low[lane] + high[lane]) * 0.5
            reached[lane] = 0
        for block in range(blocks):
            for lane in range(LANES):
                reached[lane] += maxima[block, lane] >= middle[lane]
        for lane in range(LANES):
            enough = reached[lane] >= k
            low[lane] = middle[lane] if enough else low[lane]
            high[lane] = high[lane] if enough else middle[lane]
    for lane in range(LANES):
        reached[lane] = 0
    for block in range(blocks):
        for lane in range(LANES):
            reached[lane] += maxima[block, lane] >= low[lane]
    for lane in range(LANES):
        if k <= reached[lane] <= k + (k >> 3) + 4:
            threshold[lane] = low[lane]
        else:
            threshold[lane] = _kth_maximum(maxima, blocks, lane, k, work)


@_exact
def _kth_maximum(maxima, blocks, lane, k, work):
    """k-th largest of a lane's block maxima, NaN counted as infinity."""
    for block in range(blocks):
        s = maxima[block, lane]
        work[block] = np.inf if np.isnan(s) else s
    return kth_largest(work, blocks, k)


@_exact
def _shorten(kept, names, size, k, work, index, value):
    """Keep the k best of a full list; returns the score under which nothing can get in any more."""
    select(kept, names, size, k, work, index, value)
    least = np.inf
    for i in range(k):
        kept[i] = value[i]
        names[i] = index[i]
        if value[i] < least:
            least = value[i]
    return least


@_compiled
def correlate_topk(values, rows, residual, bias, index, value, scores, start, stop):
    """Tiles [start, stop) of 64 samples, scores [chunk, 64] at a time, which is scratch.

    The first chunk's block maxima give each lane's threshold; scores that reach it are listed, and
    a list that is full is cut to its k best, which raises the threshold.
    """
    batch, m = residual.shape
    kind = residual.dtype
    n, k, chunk = rows.shape[0], index.shape[1], min(scores.shape[0], rows.shape[0])
    size, room = max(1, chunk // (_BLOCKS_PER_K * k)), 3 * k + 64
    blocks = (chunk + size - 1) // size
    panel, maxima = np.empty((m, LANES), kind), np.empty((blocks, LANES), kind)
    work, threshold = np.empty(max(blocks, room), kind), np.empty(LANES, kind)
    bounds = np.empty((3, LANES), kind)
    reached, count = np.empty(LANES, np.int32), np.empty(LANES, np.int64)
    kept, names = np.empty((LANES, room), kind), np.empty((LANES, room), np.int64)
    for tile in range(start, stop):
        first, present = tile * LANES, min(LANES, batch - tile * LANES)
        load_panel(residual, first, panel)
        count[:] = 0
        for base in range(0, n, chunk):
            end = min(chunk, n - base)
            v, r, c = values[base:], rows[base:], bias[base:]
            if base == 0:
                for block in range(blocks):
                    stop_at = min((block + 1) * size, end)
                    score_block(v, r, c, panel, block * size, stop_at, scores, maxima, block)
                threshold[:] = -np.inf
                if blocks >= k:
                    _thresholds(maxima, blocks, k, bounds, reached, work, threshold)
                threshold[present:] = np.inf
            else:
                score_block(v, r, c, panel, 0, end, scores, maxima, 0)
            for j in range(end):
                bits = lanes_reaching(scores, j, threshold)
                while bits != 0:
                    lane = lowest_bit(bits)
                    bits &= bits - np.uint64(1)
                    if lane >= present:  # a NaN in an empty lane
                        break
                    if count[lane] == room:
                        b = first + lane
                        threshold[lane] = _shorten(kept[lane], names[lane], room, k, work, index[b], value[b])
                        count[lane] = k
                    kept[lane, count[lane]] = scores[j, lane]
                    names[lane, count[lane]] = base + j
                    count[lane] += 1
        for lane in range(present):
            b = first + lane
            select(kept[lane], names[lane], count[lane], k, work, index[b], value[b])


@_compiled
def correlate(values, rows, residual, out, start, stop):
    """out[b] = residual[b] · W for tiles [start, stop) of 64 samples."""
    batch, m = residual.shape
    n = rows.shape[0]
    panel = np.empty((m, LANES), residual.dtype)
    maxima = np.empty((1, LANES), residual.dtype)
    zeros = np.zeros(LANES, residual.dtype)
    part = np.empty((LANES, LANES), residual.dtype)
    for tile in range(start, stop):
        first = tile * LANES
        load_panel(residual, first, panel)
        for j in range(0, n, LANES):
            width = min(LANES, n - j)
            score_block(values[j:], rows[j:], zeros, panel, 0, width, part, maxima, 0)
            for lane in range(min(LANES, batch - first)):
                for i in range(width):
                    out[first + lane, j + i] = part[i, lane]
