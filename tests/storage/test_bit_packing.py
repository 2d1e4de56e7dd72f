"""Packed numbers come back, take the bytes that their bits need, and no others are taken for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expander_sae.storage import bit_packing
from expander_sae.storage.bit_packing import pack, packed_bytes, unpack


@st.composite
def numbers(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    bits = draw(st.integers(1, 17))
    found = draw(st.lists(st.integers(0, 2**bits - 1), max_size=70))
    return np.array(found, dtype=np.int64), bits


@given(numbers())
def test_what_is_packed_comes_back(case: tuple[np.ndarray, int]) -> None:
    found, bits = case
    packed = pack(found, bits)
    assert packed.dtype == np.uint8 and len(packed) == packed_bytes(len(found), bits)
    assert (len(packed) - 1) * 8 < len(found) * bits <= len(packed) * 8 or not len(found)
    assert unpack(packed, bits, len(found)).tolist() == found.tolist()


@given(numbers())
def test_the_bits_stand_one_after_the_other(case: tuple[np.ndarray, int]) -> None:
    found, bits = case
    text = "".join(f"{number:0{bits}b}" for number in found)
    packed = pack(found, bits)
    assert "".join(f"{byte:08b}" for byte in packed) == text.ljust(8 * len(packed), "0")


def test_pieces_are_joined_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    found = np.arange(101) % 8
    whole = pack(found, 3)
    monkeypatch.setattr(bit_packing, "_PIECE", 16)
    assert pack(found, 3).tobytes() == whole.tobytes()
    assert unpack(whole, 3, 101).tolist() == found.tolist()


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ([4], [-1]):
        with pytest.raises(ValueError, match="expected 0 to 3"):
            pack(np.array(wrong), 2)
    packed = pack(np.array([3, 0, 1]), 2)
    with pytest.raises(ValueError, match=r"expected uint8 \[2\] of 5 numbers of 2 bits"):
        unpack(packed, 2, 5)
    with pytest.raises(ValueError, match="other bits than 0 behind the last of 3"):
        unpack(packed | np.uint8(1), 2, 3)
