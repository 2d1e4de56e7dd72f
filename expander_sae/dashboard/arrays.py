"""Arrays as the page stores them: little-endian bytes in base64, values in 16 bits."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from expander_sae.model.dictionary import SparseCode

STEPS = 32767
_KINDS = {"uint16": "Uint16Array", "uint32": "Uint32Array", "int16": "Int16Array", "float32": "Float32Array"}
"""What JavaScript calls them."""


def packed(array: np.ndarray) -> dict[str, str]:
    """{type, data}: whole numbers ≥ 0 as uint16 where they fit, else uint32; int16 and float32 stay."""
    if array.dtype.kind in "iu" and array.dtype != np.int16:
        array = array.astype("<u2" if array.size == 0 or array.max() < 1 << 16 else "<u4")
    little = array.astype(array.dtype.newbyteorder("<"))
    return {"type": _KINDS[array.dtype.name], "data": base64.b64encode(little.tobytes()).decode("ascii")}


def quantised(values: np.ndarray, largest: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, float]:
    """Values [E] as int16 steps of largest[group]/32767, and 1/32767: off by at most half a step."""
    scale = np.where(largest > 0, largest, 1.0)[group]
    steps = np.nan_to_num(values / scale) * STEPS
    return np.clip(np.rint(steps), -STEPS, STEPS).astype(np.int16), 1.0 / STEPS


def compact(code: SparseCode, rows: np.ndarray, features: np.ndarray, n: int) -> dict[str, Any]:
    """Codes of the pool's `rows`, of the `features` kept among n, as JSON and by feature.

    Firings of the i-th feature stand at [starts[i], starts[i + 1]): token, the row of the pool, ascending;
    value, int16 steps of largest[i]/32767; largest is float32.
    """
    place = np.full(n, -1, dtype=np.int64)
    place[features] = np.arange(len(features))
    sample, slot = np.nonzero(code.value.numpy() != 0)
    feature = place[code.index.numpy()[sample, slot]]
    value = code.value.numpy()[sample, slot].astype(np.float32)
    kept = feature >= 0
    feature, value, token = feature[kept], value[kept], rows[sample[kept]]
    order = np.lexsort((token, feature))
    feature, value, token = feature[order], value[order], token[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(feature, minlength=len(features)))])
    largest = np.zeros(len(features), dtype=np.float32)
    np.maximum.at(largest, feature, np.abs(value))
    steps = quantised(value, largest, feature)[0]
    found = {"starts": starts, "token": token, "value": steps, "largest": largest}
    return {name: packed(array) for name, array in found.items()}
